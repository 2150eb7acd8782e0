"""The room ``reviewing`` of the task classify, see `plumbline.review.differences`."""

from plumbline.classify.reviewing.intervals import details, overall

__all__ = ["details", "overall"]
