"""Every fault that the line can find, by its stable code: one explicit table.

What finds a fault is elsewhere (the label readers, `plumbline.checks`, the split). What it means is said by
`validate.severity` in params.yaml: ``error`` stops, ``warning`` tells and goes on, ``off`` goes on. What cannot be kept
is left out by the latter two, and every such thing is a row of the edits table.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes:
        code: Its name in findings and in `validate.severity`; a code once published keeps its meaning.
        name: The same for people, in snake_case.
        what: What is wrong.
        leaves_out: What goes when the line goes on: ``box``, ``image`` (with its boxes), ``file`` (that never became an
            image or a box), or "" for what is kept as it is.
        remedy: What a person can do about it.
    """

    code: str
    name: str
    what: str
    leaves_out: str
    remedy: str

    @property
    def keepable(self) -> bool:
        """Say whether the line can go on with it."""
        return not self.leaves_out


UNREADABLE_IMAGE = "E101"
DAMAGED_IMAGE = "E102"
EXIF_CONTRADICTS_LABEL = "E103"
SIZE_MISMATCH = "E104"
MISSING_IMAGE = "E105"
MISSING_LABEL = "E106"
DUPLICATE_IMAGE = "E107"
DUPLICATE_IMAGE_OTHER_LABELS = "E108"
NEAR_DUPLICATE_IMAGE = "E109"
NAME_COLLISION = "E110"
TINY_IMAGE = "E111"
UNSUPPORTED_IMAGE = "E112"
UNSAFE_MEMBER = "E113"
UNSAFE_NAME = "E114"
MALFORMED_LABEL = "E201"
MALFORMED_ROW = "E202"
NOT_UTF8 = "E203"
BYTE_ORDER_MARK = "E204"
NOT_FINITE = "E205"
UNKNOWN_CLASS = "E206"
CLASS_OUT_OF_RANGE = "E207"
SECOND_LABEL = "E208"
UNSUPPORTED_SHAPE = "E209"
TWO_SPLITS = "E210"
ZERO_AREA_BOX = "E301"
REVERSED_BOX = "E302"
BOX_OUT_OF_BOUNDS = "E303"
TINY_BOX = "E304"
GIANT_BOX = "E305"
EXTREME_ASPECT_BOX = "E306"
DUPLICATE_BOX = "E307"
NEAR_DUPLICATE_BOX = "E308"
TWO_CLASSES = "E309"
EMPTY_CLASS = "E401"
SMALL_CLASS = "E402"
CLASS_IMBALANCE = "E403"
TABLE_EXPECTATION = "E404"

# In the order in which one fault explains another: what has several is left out for the first.
_ROWS = (
    # Nothing can be trained or measured on it.
    Fault("E101", "unreadable_image", "is no image, or not one that can be decoded", "image", "replace the file"),
    Fault("E102", "damaged_image", "its content is cut short or damaged", "image", "replace the file"),
    # ultralytics leaves it out of training, and evaluation would count its boxes as missed.
    Fault("E111", "tiny_image", "a side of fewer than 10 pixels", "image", "replace or remove the image"),
    # There is nothing to keep.
    Fault("E112", "unsupported_image", "an image file of a type that the line does not read", "file",
          "convert it to JPEG or PNG"),
    Fault("E113", "unsafe_member", "an archive's entry that leaves the archive, is a link, or is a bomb", "file",
          "make the archive again from plain files"),
    Fault("E114", "unsafe_name", "a file name that is not UTF-8, or holds unprintable characters", "file",
          "rename the file"),
    Fault("E105", "missing_image", "a label names an image that is not there", "file",
          "add the image or remove the label"),
    # There is no box to keep. Without the box its object would be taught as background, so the image goes with it.
    Fault("E201", "malformed_label", "a label file that cannot be read", "image", "fix the label"),
    Fault("E202", "malformed_row", "a row or object of a label that cannot be read", "image", "fix the label"),
    Fault("E205", "not_finite", "a coordinate that is NaN or infinite", "image", "fix the label"),
    Fault("E208", "second_label", "a second label for one image", "image", "remove one of the two"),
    Fault("E209", "unsupported_shape", "a shape that cannot become a box", "image", "draw a box or a polygon"),
    # Kept as an image on which nothing is to be found.
    Fault("E106", "missing_label", "an image without a label", "", "add the label or remove the image"),
    # Read as Latin-1, which every byte is.
    Fault("E203", "not_utf8", "a label file that is not UTF-8", "", "save it as UTF-8"),
    Fault("E204", "byte_order_mark", "a label file that begins with a byte order mark", "", "save it without"),
    # Boxes that lie outside because of it are found by themselves.
    Fault("E103", "exif_contradicts_label", "the label's size is the image's before its EXIF rotation", "",
          "rotate the pixels and remove the EXIF tag, or label the image as it is shown"),
    Fault("E104", "size_mismatch", "the label's width and height are not the image's", "",
          "fix the label or replace the image"),
    # The split puts both on one side.
    Fault("E108", "duplicate_image_other_labels", "the same bytes twice, with different labels", "",
          "remove one of the two"),
    Fault("E107", "duplicate_image", "the same bytes twice", "", "remove one of the two"),
    Fault("E109", "near_duplicate_image", "an image that looks like another", "", "remove one of the two"),
    # It stands in the later of train, val and test.
    Fault("E210", "two_splits", "an image that the data set's own lists deal to two splits", "", "correct the lists"),
    Fault("E110", "name_collision", "a name that another file system cannot tell from another, or cannot hold", "",
          "rename the file"),
    # A class without a number cannot be trained.
    Fault("E206", "unknown_class", "a class that is not in dataset.class_names", "box",
          "fix the label, or add the class to dataset.class_names"),
    Fault("E207", "class_out_of_range", "a class number beyond the data set's own list of classes", "box",
          "fix the label"),
    # ultralytics trains on it and COCO's evaluator counts it as missed for ever.
    Fault("E301", "zero_area_box", "no width or no height", "box", "fix the label"),
    Fault("E302", "reversed_box", "a right corner left of the left one, or a lower one above", "box", "fix the label"),
    # ultralytics leaves out the whole image for it.
    Fault("E303", "box_out_of_bounds", "a corner outside the image", "box", "fix the label"),
    # ultralytics takes it out by itself, so that train and evaluate would not see the same boxes.
    Fault("E307", "duplicate_box", "same class, same corners, same image", "box", "fix the label"),
    Fault("E308", "near_duplicate_box", "nearly the same corners, same class, same image", "", "fix the label"),
    Fault("E309", "two_classes", "two classes on one box, or on one image", "", "fix the label"),
    Fault("E304", "tiny_box", "a side of fewer pixels than validate.tiny_px", "", "look at it"),
    Fault("E305", "giant_box", "more of its image than validate.giant_share", "", "look at it"),
    Fault("E306", "extreme_aspect_box", "one side longer than the other by more than validate.extreme_aspect", "",
          "look at it"),
    # It never gets a score, and the others train.
    Fault("E401", "empty_class", "a class without a single box", "",
          "add labels of it or take it out of dataset.class_names"),
    Fault("E402", "small_class", "a class of fewer boxes than validate.min_boxes_per_class", "", "add labels of it"),
    Fault("E403", "class_imbalance", "a class rarer than the commonest by more than validate.max_imbalance", "",
          "add labels of it"),
    Fault("E404", "table_expectation", "the tables do not hold what every data set must", "", "run ingest again"),
)  # fmt: skip
FAULTS: dict[str, Fault] = {fault.code: fault for fault in _ROWS}
