"""Where the masks of a folder may be wrong, judged by the index and by how masks overlap."""

from longsam.masks.reviews.spans import LEAST_SURE, Span, review

__all__ = ["LEAST_SURE", "Span", "review"]
