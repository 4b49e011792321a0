"""Masks on disk: written while tracking goes on, whole at any time, and read back."""

from longsam.masks.exports import export
from longsam.masks.lines import FORMATS
from longsam.masks.reader import FrameMasks, MaskFolder, read_masks
from longsam.masks.writer import MaskWriter

__all__ = ["FORMATS", "FrameMasks", "MaskFolder", "MaskWriter", "export", "read_masks"]
