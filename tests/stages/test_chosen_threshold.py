"""An artifact's own threshold is chosen on val, and written into its artifact.json."""

import json

import pandas as pd
import pytest
from tiny_classifier import write_tiny_class_dataset, write_tiny_classifier
from tiny_detector import write_tiny_artifact, write_tiny_dataset

from plumbline.chosen_threshold import ThresholdParams, choose_on_val
from plumbline.errors import EvaluationError
from plumbline.manifest import ANNOTATIONS_SCHEMA, read_dataset, write_table
from plumbline.runtime.artifact import read_artifact
from plumbline.runtime.preprocess import read_image
from plumbline.runtime.session import load_artifact

# val: two bright cells that are labelled, a dimmer labelled one, and a false alarm between them in brightness. A test
# image full of false alarms must change nothing.
VAL = [(0, 0, 0, 255), (1, 2, 2, 250), (0, 5, 5, 140), (1, 6, 1, 170)]
TEST = [(0, column, 0, 255) for column in range(8)]
LABELS = [VAL[:3], []]


@pytest.fixture
def detector(tmp_path):
    write_tiny_artifact(tmp_path / "artifact")
    write_tiny_dataset(tmp_path, [VAL, TEST], ["val", "test"], LABELS)
    return tmp_path


def choose(place, rule="best_f1", precision=0.9, difficult="count"):
    data = read_dataset(place / "validated", root=place / "dataset")
    params = ThresholdParams(rule=rule, precision=precision)
    return choose_on_val(
        place / "artifact", data, place / "splits.parquet", params, difficult=difficult, tell=lambda _: None
    )


def test_best_f1_of_a_detector(detector):
    written = choose(detector)
    assert written == read_artifact(detector / "artifact")
    told = written.notes["threshold"]
    assert (told["rule"], told["split"], told["num_images"]) == ("best_f1", "val", 1)
    # All four shown: 2 * 3 / (4 + 3); the two bright ones: 2 * 2 / (2 + 3).
    assert told["f1"] == pytest.approx(6 / 7)
    session = load_artifact(detector / "artifact")
    assert len(session.predict(read_image(detector / "dataset/images/000.png"))) == 4


def test_a_demanded_precision_of_a_detector(detector):
    told = choose(detector, "precision", 0.95).notes["threshold"]
    assert told["precision"] == 1.0
    assert told["recall"] == pytest.approx(2 / 3)


def test_it_may_be_chosen_again(detector):
    first = choose(detector, "precision", 0.95)
    assert choose(detector) != first
    assert choose(detector, "precision", 0.95) == first


def test_a_precision_that_is_not_reached_is_told(detector):
    before = (detector / "artifact/artifact.json").read_bytes()
    write_tiny_dataset(detector / "wrong", [VAL], ["val"], [[(1, 0, 0), (1, 2, 2)]])
    (detector / "wrong/artifact").symlink_to(detector / "artifact")
    with pytest.raises(EvaluationError, match=r"with a precision of 0\.9 or more, got 0\.5"):
        choose(detector / "wrong", "precision")
    assert (detector / "artifact/artifact.json").read_bytes() == before


def test_a_model_that_finds_nothing_says_so(detector):
    write_tiny_dataset(detector / "dark", [[]], ["val"], [[(1, 0, 0)]])
    (detector / "dark/artifact").symlink_to(detector / "artifact")
    told = choose(detector / "dark").notes["threshold"]
    assert told["rule"] == "none: nothing was found on val"
    assert "f1" not in told


def test_a_val_without_boxes_is_not_blamed_on_the_model(detector):
    write_tiny_dataset(detector / "bare", [VAL], ["val"], [[]])
    (detector / "bare/artifact").symlink_to(detector / "artifact")
    assert choose(detector / "bare").notes["threshold"]["rule"] == "none: there is nothing to find on val"


def test_an_empty_val_is_an_error(detector):
    write_tiny_dataset(detector / "none", [VAL], ["test"])
    (detector / "none/artifact").symlink_to(detector / "artifact")
    with pytest.raises(EvaluationError, match="expected one or more images in the split 'val', got none"):
        choose(detector / "none")


def test_a_classifier(tmp_path):
    write_tiny_classifier(tmp_path / "artifact")
    write_tiny_class_dataset(tmp_path, [(0, 255), (1, 200), (2, 60)], ["val", "val", "val"], [0, 1, 1])
    told = choose(tmp_path, "precision", 0.95).notes["threshold"]
    assert told["precision"] == 1.0
    assert told["recall"] == pytest.approx(2 / 3)
    assert json.loads((tmp_path / "artifact/artifact.json").read_text())["decode"]["confidence_threshold"] > 0.8


def test_difficult_boxes_count_as_the_evaluation_counts_them(detector):
    """The dimmest box is difficult: ignored, it is neither found nor missed, and the threshold rises above it."""
    path = detector / "validated/annotations.parquet"
    boxes = pd.read_parquet(path)
    boxes["difficult"] = [False, False, True]
    write_table(boxes, ANNOTATIONS_SCHEMA, path)
    counted = choose(detector)
    ignored = choose(detector, difficult="ignore")
    assert counted.notes["threshold"]["recall"] == 1.0
    assert ignored.notes["threshold"]["f1"] == 1.0
    assert ignored.decode.confidence_threshold > counted.decode.confidence_threshold
