"""Masks in the formats of other tools: a small module for each, written frame by frame."""

from longsam.masks.exports.run import FORMATS, export

__all__ = ["FORMATS", "export"]
