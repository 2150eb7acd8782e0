"""The room ``reviewing`` of the task detect, see `plumbline.review.differences`."""

from plumbline.detect.reviewing.changed import changed_sheet
from plumbline.detect.reviewing.intervals import details, overall

__all__ = ["changed_sheet", "details", "overall"]
