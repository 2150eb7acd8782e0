"""COCO's matching, against both packages that are its reference, on hard boxes: heaps, ties, touching edges."""

import numpy as np
import pandas as pd
import pytest
from coco_reference import STATS, XYXY, coco_says, crowded_scene, found_rows, random_scene, sorted_rows, truth_rows
from defusedxml import ElementTree
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline.detect.scoring import matching
from plumbline.detect.scoring.average_precision import highest_recall, interpolated_precision
from plumbline.detect.scoring.coco_evaluation import evaluate_detections
from plumbline.detect.scoring.matching import AREAS, IOU_50, match

CLASSES = ("zero", "one", "two")


def assert_same(truth, found, image_ids, num_classes, *, difficult="count", package="pycocotools"):
    """Precision at every recall, IoU, class, area; recall at every number of detections, too; -1 where undefined."""
    truth, found = sorted_rows(truth, found)
    theirs = coco_says(truth, found, image_ids, num_classes, package, ignore_difficult=difficult == "ignore")
    matches = match(truth, found, image_ids, num_classes, difficult=difficult)
    precision = np.reshape(theirs.eval["precision"], (10, 101, num_classes, 4, 3))
    recall = np.reshape(theirs.eval["recall"], (10, num_classes, 4, 3))
    for place, area in enumerate(AREAS):
        own = interpolated_precision(matches, area)
        np.testing.assert_allclose(np.nan_to_num(own, nan=-1), precision[:, :, :, place, 2], atol=1e-12, rtol=0)
        for column, most in enumerate((1, 10, 100)):
            own = highest_recall(matches, area, most)
            np.testing.assert_allclose(np.nan_to_num(own, nan=-1), recall[:, :, place, column], atol=1e-12, rtol=0)


@settings(max_examples=150)
@given(seed=st.integers(0, 1_000_000))
def test_hard_boxes_are_matched_as_pycocotools_matches_them(seed):
    assert_same(*crowded_scene(seed), range(5), 3)


@settings(max_examples=60)
@given(seed=st.integers(0, 1_000_000))
def test_difficult_boxes_are_ignored_as_pycocotools_would_ignore_them(seed):
    assert_same(*crowded_scene(seed), range(5), 3, difficult="ignore")


@settings(max_examples=60)
@given(seed=st.integers(0, 1_000_000))
def test_hard_boxes_are_matched_as_faster_coco_eval_matches_them(seed):
    truth, found = crowded_scene(seed)
    if len(found):  # it cannot take none
        assert_same(truth, found, range(5), 3, package="faster_coco_eval")


@pytest.mark.parametrize("package", ["pycocotools", "faster_coco_eval"])
@pytest.mark.parametrize("pairs", [1, 7, 4_000_000])
def test_many_images_and_classes_in_one_go_or_in_parts(package, pairs, monkeypatch):
    monkeypatch.setattr(matching, "_MOST_PAIRS", pairs)
    truth, found = random_scene(11, num_images=60, num_classes=9, ties=True)
    truth = truth.assign(crowd=np.arange(len(truth)) % 9 == 0)
    assert_same(truth, found, range(60), 9, package=package)


def bccd_truth(folder):
    """Return BCCD's own labels, also the two without an area, with images numbered by name."""
    names = ("RBC", "WBC", "Platelets")
    rows = []
    for image_id, path in enumerate(sorted((folder / "Annotations").glob("*.xml"))):
        for item in ElementTree.parse(path).getroot().iter("object"):
            box = [float(item.findtext(f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax")]
            rows.append((image_id, names.index(item.findtext("name")), box[0] - 1, box[1] - 1, *box[2:]))
    return truth_rows(rows)


@pytest.mark.parametrize("package", ["pycocotools", "faster_coco_eval"])
def test_the_labels_of_bccd_and_what_a_detector_may_have_found(bccd, package):
    truth = bccd_truth(bccd)
    rng = np.random.default_rng(0)
    source = np.repeat(np.arange(len(truth)), rng.integers(0, 4, len(truth)))
    found = truth.iloc[source].reset_index(drop=True)
    found[XYXY] += rng.normal(0, 1, (len(found), 4)) * rng.choice([1, 5, 20], len(found))[:, None]
    found[["x2", "y2"]] = np.maximum(found[["x2", "y2"]].to_numpy(), found[["x1", "y1"]].to_numpy() + 1)
    found[XYXY] = found[XYXY].astype(np.float32)
    found["class_id"] = np.where(rng.random(len(found)) < 0.9, found["class_id"], rng.integers(0, 3, len(found)))
    # As an int8 artifact's: many are equal.
    found["confidence"] = (rng.integers(1, 256, len(found)) / 256).astype(np.float32)
    image_ids = range(truth["image_id"].max() + 1)
    assert (len(image_ids), len(truth)) == (364, 4888)
    assert_same(truth, found, image_ids, 3, package=package)
    theirs = coco_says(*sorted_rows(truth, found), image_ids, 3, package)
    metrics = evaluate_detections(truth, found, image_ids, CLASSES, confidence_threshold=0.25).metrics
    ours = [metrics.get(name, -1) for name in STATS]
    np.testing.assert_allclose(ours, np.array(theirs.stats[:12]), atol=1e-12, rtol=0)


def test_what_found_what_can_be_looked_up_in_the_tables():
    truth = truth_rows([(7, 1, 0, 0, 10, 10), (3, 0, 0, 0, 10, 10), (3, 0, 40, 40, 50, 50)])
    found = found_rows([(3, 0, 0.4, 41, 40, 50, 50), (7, 1, 0.9, 0, 0, 10, 9), (3, 0, 0.8, 90, 90, 99, 99)])
    matches = match(truth, found, [3, 5, 7], 2)
    everything = matches.areas["all"]
    assert matches.row.tolist() == [2, 0, 1]
    assert (matches.image_id.tolist(), matches.class_id.tolist()) == ([3, 3, 7], [0, 0, 1])
    assert matches.class_start.tolist() == [0, 2, 3]
    assert matches.rank.tolist() == [0, 1, 0]
    assert matches.box_row[everything.box[IOU_50]].tolist()[1:] == [2, 0]
    assert everything.box[IOU_50].tolist()[0] == -1
    assert everything.hits[IOU_50].tolist() == [False, True, True]
    assert dict(zip(matches.box_row.tolist(), everything.found(IOU_50).tolist(), strict=True)) == {
        0: True, 1: False, 2: True,
    }  # fmt: skip


def test_what_it_was_given_stays_as_it_was():
    truth, found = crowded_scene(2)
    copies = truth.copy(), found.copy()
    match(truth, found, range(5), 3, difficult="ignore")
    pd.testing.assert_frame_equal(truth, copies[0])
    pd.testing.assert_frame_equal(found, copies[1])
