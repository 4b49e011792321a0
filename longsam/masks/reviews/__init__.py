"""Where the masks of a folder may be wrong, by what the index says and how masks overlap."""

from longsam.masks.reviews.spans import LEAST_SURE, Span, review

__all__ = ["LEAST_SURE", "Span", "review"]
