"""The room ``reviewing`` of the task classify, see `plumbline.review.differences`."""

from plumbline.classify.reviewing.changed import changed_sheet
from plumbline.classify.reviewing.intervals import details, overall

__all__ = ["changed_sheet", "details", "overall"]
