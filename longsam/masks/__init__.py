"""Masks on disk: written during tracking, complete at any time, and read back."""

from longsam.masks.drawing import draw
from longsam.masks.exports import export
from longsam.masks.lines import FORMATS
from longsam.masks.reader import FrameMasks, MaskFolder, read_masks
from longsam.masks.render import render_overlay
from longsam.masks.reviews import Span, review
from longsam.masks.to_supervision import as_supervision
from longsam.masks.writer import MaskWriter

__all__ = [
    "FORMATS",
    "FrameMasks",
    "MaskFolder",
    "MaskWriter",
    "Span",
    "as_supervision",
    "draw",
    "export",
    "read_masks",
    "render_overlay",
    "review",
]
