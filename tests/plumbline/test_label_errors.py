from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline.errors import EvaluationError
from plumbline.label_error_trial import area_under_roc, naive_ranking, plant_label_errors, score_ranking
from plumbline.label_errors import COLUMNS, KINDS, PREDICTED_XYXY, XYXY, rank_label_errors

CLASSES = ("cat", "dog", "owl")
A, B, C = (10.0, 10.0, 50.0, 50.0), (60.0, 10.0, 100.0, 50.0), (10.0, 60.0, 50.0, 100.0)


def given_boxes(*rows, **columns):
    """Rows of (image_id, class_id, xyxy); ann_id counts up."""
    boxes = [(image_id, ann_id, class_id, *xyxy) for ann_id, (image_id, class_id, xyxy) in enumerate(rows)]
    return pd.DataFrame(boxes, columns=["image_id", "ann_id", "class_id", *XYXY]).assign(**columns)


def seen_boxes(*rows):
    """Rows of (image_id, class_id, confidence, xyxy)."""
    boxes = [(image_id, class_id, confidence, *xyxy) for image_id, class_id, confidence, xyxy in rows]
    return pd.DataFrame(boxes, columns=["image_id", "class_id", "confidence", *XYXY])


def rank(annotations, predictions, images=(0,), **more):
    return rank_label_errors(annotations, predictions, CLASSES, images, **more)


def test_labels_that_the_model_agrees_with_are_no_suspects():
    suspects = rank(given_boxes((0, 0, A), (0, 1, B)), seen_boxes((0, 0, 0.95, A), (0, 1, 0.9, B)))
    assert suspects["score"].max() < 0.01


def test_an_object_without_a_box_is_a_missing_label():
    suspects = rank(given_boxes((0, 0, A)), seen_boxes((0, 0, 0.95, A), (0, 1, 0.9, B)))
    first = suspects.iloc[0]
    assert (first["kind"], first["ann_id"], first["class_id"], first["predicted_class_id"]) == (
        "missing_label",
        -1,
        -1,
        1,
    )
    assert first["score"] == pytest.approx(0.9)
    assert first[PREDICTED_XYXY].tolist() == list(B)
    assert first[XYXY].isna().all()
    assert first["message"] == "no box where the model sees dog (0.90); add one if it is there"


def test_one_object_is_one_suspect_whatever_classes_it_may_be():
    suspects = rank(given_boxes((0, 0, A)), seen_boxes((0, 0, 0.95, A), (0, 1, 0.6, B), (0, 2, 0.5, B)))
    assert (suspects["kind"] == "missing_label").sum() == 1


def test_another_class_in_the_place_of_a_box_is_a_wrong_class():
    suspects = rank(given_boxes((0, 0, A), (0, 1, B)), seen_boxes((0, 0, 0.95, A), (0, 2, 0.9, B), (0, 1, 0.05, B)))
    first = suspects.iloc[0]
    assert (first["kind"], first["ann_id"], first["class_id"], first["predicted_class_id"]) == ("wrong_class", 1, 1, 2)
    assert first["message"] == "labelled dog, the model sees owl (0.90) there; correct the class if it is one"
    assert (suspects["score"][1:] < 0.01).all(), "the prediction is not reported a second time as a missing label"


def test_a_model_that_sees_both_classes_says_little():
    sure = rank(given_boxes((0, 1, B)), seen_boxes((0, 2, 0.8, B)))
    unsure = rank(given_boxes((0, 1, B)), seen_boxes((0, 2, 0.8, B), (0, 1, 0.6, B)))
    assert unsure["score"][0] < 0.1 * sure["score"][0]


def test_the_same_class_beside_a_box_is_a_badly_placed_one():
    moved = (75.0, 10.0, 115.0, 50.0)
    suspects = rank(given_boxes((0, 0, A), (0, 1, moved)), seen_boxes((0, 0, 0.95, A), (0, 1, 0.9, B)))
    first = suspects.iloc[0]
    assert (first["kind"], first["ann_id"]) == ("badly_placed", 1)
    assert first["iou"] == pytest.approx(25 / 55)
    assert first["message"].startswith("labelled dog, the model sees dog (0.90) in a box that shares only 45% with")
    assert len(suspects[suspects["score"] > 0.05]) == 1


def test_what_overlap_is_normal_depends_on_the_data():
    """A loose model's overlap of 0.6 is its usual one; a tight model's is a suspect."""
    scores = []
    for slack in (0, 8):
        annotations = given_boxes(*[(image_id, 0, A) for image_id in range(20)], (20, 0, A))
        usual = [(image_id, 0, 0.9, (A[0] + slack, A[1], A[2] + slack, A[3])) for image_id in range(20)]
        suspects = rank(annotations, seen_boxes(*usual, (20, 0, 0.9, (20.0, 10.0, 60.0, 50.0))), range(21))
        scores.append(suspects.set_index("ann_id")["score"][20])
    assert scores[1] < 0.5 * scores[0]


def test_a_box_that_nothing_supports_is_a_spurious_label():
    suspects = rank(given_boxes((0, 0, A), (0, 0, B)), seen_boxes((0, 0, 0.95, A)))
    first = suspects.iloc[0]
    assert (first["kind"], first["ann_id"], first["predicted_class_id"]) == ("spurious_label", 1, -1)
    assert first[PREDICTED_XYXY].isna().all()
    assert math.isnan(first["iou"])
    assert first["message"].startswith("labelled cat, the model sees next to nothing there (0.00)")


def test_a_model_that_overlooks_a_class_does_not_call_its_labels_spurious():
    """Of 20 owls it sees 5; of 20 cats, 19."""
    boxes = [(image_id, class_id, box) for image_id in range(20) for class_id, box in ((0, A), (2, B))]
    cats = [(image_id, 0, 0.9, A) for image_id in range(19)]
    owls = [(image_id, 2, 0.9, B) for image_id in range(5)]
    suspects = rank(given_boxes(*boxes), seen_boxes(*cats, *owls), range(20))
    assert suspects["class_id"].tolist()[0] == 0
    assert suspects["score"][0] > 5 * suspects["score"][1]


def test_a_weak_prediction_is_enough_against_a_spurious_label():
    suspects = rank(given_boxes((0, 0, A), (0, 0, B)), seen_boxes((0, 0, 0.95, A), (0, 0, 0.3, B)))
    nothing = rank(given_boxes((0, 0, A), (0, 0, B)), seen_boxes((0, 0, 0.95, A)))
    assert suspects.set_index("ann_id")["score"][1] < 0.5 * nothing.set_index("ann_id")["score"][1]


def test_a_second_object_close_to_a_labelled_one_is_still_missing():
    close = (30.0, 10.0, 70.0, 50.0)  # shares a third with A
    suspects = rank(given_boxes((0, 0, A)), seen_boxes((0, 0, 0.95, A), (0, 0, 0.9, close)))
    assert suspects["kind"][0] == "missing_label"
    assert suspects["score"][0] > 0.5


def test_crowds_are_not_judged_nor_what_is_seen_on_them():
    annotations = given_boxes((0, 0, A), (0, 0, (60.0, 0.0, 200.0, 200.0)), crowd=[False, True])
    suspects = rank(annotations, seen_boxes((0, 0, 0.95, A), (0, 0, 0.9, B)))
    assert suspects["score"].max() < 0.01


def test_a_difficult_box_is_no_spurious_one_but_may_have_a_wrong_class():
    annotations = given_boxes((0, 0, A), (0, 0, B), difficult=[True, True])
    suspects = rank(annotations, seen_boxes((0, 1, 0.95, A)))
    assert suspects["kind"].tolist() == ["wrong_class"]


def test_boxes_without_a_class_number_or_an_area_are_left_to_validate():
    annotations = given_boxes((0, -1, A), (0, -2, B), (0, 0, (math.nan,) * 4), (0, 1, (10.0, 60.0, 10.0, 100.0)))
    suspects = rank(annotations, seen_boxes((0, 0, 0.9, A), (0, 0, 0.9, C)))
    assert suspects["kind"].tolist() == ["missing_label"]
    assert suspects[PREDICTED_XYXY].iloc[0].tolist() == list(C)


def test_images_without_labels_or_predictions_are_judged_too():
    suspects = rank(given_boxes((1, 0, A)), seen_boxes((0, 0, 0.9, A)), (0, 1, 2))
    assert suspects[["image_id", "kind"]].to_numpy().tolist() == [[0, "missing_label"], [1, "spurious_label"]]
    assert list(rank(given_boxes(), seen_boxes())) == COLUMNS
    assert list(rank(given_boxes(), seen_boxes(), ())) == COLUMNS


def test_labels_of_other_images_are_not_judged():
    suspects = rank(given_boxes((0, 0, A), (7, 0, B)), seen_boxes((0, 0, 0.9, A)))
    assert set(suspects["image_id"]) == {0}


def test_predictions_on_other_images_or_of_other_classes_are_refused():
    with pytest.raises(EvaluationError, match=r"1 predictions are on other images .* image_id 3"):
        rank(given_boxes((0, 0, A)), seen_boxes((3, 0, 0.9, A)))
    with pytest.raises(EvaluationError, match="class_id 3, expected one of the 3 classes"):
        rank(given_boxes((0, 0, A)), seen_boxes((0, 3, 0.9, A)))


def test_min_score_cuts_the_end_off():
    annotations = given_boxes((0, 0, A), (0, 1, B))
    predictions = seen_boxes((0, 0, 0.8, A), (0, 2, 0.6, C), (0, 2, 0.4, (60.0, 60.0, 100.0, 100.0)))
    everything = rank(annotations, predictions)
    some = rank(annotations, predictions, min_score=0.5)
    assert 0 < len(some) < len(everything)
    pd.testing.assert_frame_equal(some, everything[: len(some)])


corner = st.floats(-20, 120, width=32)
rectangle = st.tuples(corner, corner, corner, corner)
labels = st.lists(st.tuples(st.integers(0, 2), st.integers(-2, 2), rectangle), max_size=8)
detections = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.floats(0, 1, width=32), rectangle), max_size=8)


@given(labels, detections, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_whatever_the_boxes_the_list_is_sound(rows, found, random):
    annotations, predictions = given_boxes(*rows), seen_boxes(*found)
    before = annotations.copy(), predictions.copy()
    suspects = rank(annotations, predictions, range(3))
    pd.testing.assert_frame_equal(annotations, before[0])
    pd.testing.assert_frame_equal(predictions, before[1])
    assert list(suspects) == COLUMNS
    assert suspects["score"].between(0, 1).all()
    assert suspects["score"].is_monotonic_decreasing
    assert set(suspects["kind"]) <= set(KINDS)
    assert not suspects["ann_id"][suspects["ann_id"] >= 0].duplicated().any()
    shuffled = [frame.iloc[random.sample(range(len(frame)), len(frame))] for frame in before]
    pd.testing.assert_frame_equal(rank(*shuffled, range(3)), suspects)


# A model's output without a model: objects are seen with a confidence that falls with their difficulty, their boxes
# tremble, some are taken for another class, and there is a false alarm here and there.


def make_scenes(seed, num_images=150, num_classes=5):
    random = np.random.default_rng(seed)
    rows = []
    for image_id in range(num_images):
        placed = np.zeros((0, 4))
        for _ in range(int(random.integers(2, 8))):
            wh = random.uniform(20, 60, 2)
            corner_xy = random.uniform(0, 300 - wh)
            box = np.concatenate([corner_xy, corner_xy + wh])
            if not ((placed[:, :2] < box[2:]) & (placed[:, 2:] > box[:2])).all(axis=1).any():
                placed = np.vstack([placed, box])
                rows.append((image_id, int(random.integers(num_classes)), tuple(box)))
    return given_boxes(*rows)


def detect(annotations, seed, num_classes=5, tremble=0.04, overlooked=0.03, confused=0.05, false_alarms=0.3):
    random = np.random.default_rng(1000 + seed)
    rows = []
    for row in annotations.itertuples():
        box = np.array([row.x1, row.y1, row.x2, row.y2])
        seen = tuple(box + random.normal(0, tremble, 4) * np.tile(box[2:] - box[:2], 2))
        if random.uniform() < overlooked:
            rows.append((row.image_id, row.class_id, float(random.uniform(0.01, 0.2)), seen))
            continue
        confidence = float(random.beta(8, 2))
        rows.append((row.image_id, row.class_id, confidence, seen))
        if random.uniform() < confused:
            other = (row.class_id + int(random.integers(1, num_classes))) % num_classes
            rows.append((row.image_id, other, float(random.uniform(0, 1 - confidence / 2)), seen))
    for image_id in annotations["image_id"].unique():
        for _ in range(random.poisson(false_alarms)):
            wh, corner_xy = random.uniform(20, 60, 2), random.uniform(0, 240, 2)
            confidence = float(random.beta(1, 6))
            box = (*corner_xy, *(corner_xy + wh))
            rows.append((image_id, int(random.integers(num_classes)), confidence, box))
    return seen_boxes(*rows)


def trial(seed, share=0.02, **noise):
    right = make_scenes(seed)
    resolutions_wh = dict.fromkeys(right["image_id"].unique().tolist(), (300, 300))
    predictions = detect(right, seed, **noise)
    wrong, planted = plant_label_errors(right, resolutions_wh, 5, share, seed)
    names = tuple("abcde")
    ranked = rank_label_errors(wrong, predictions, names, resolutions_wh)
    naive = naive_ranking(wrong, predictions)
    return score_ranking(ranked, planted, wrong), score_ranking(naive, planted, wrong)


def mean_scores(**noise):
    pairs = [trial(seed, **noise) for seed in range(5)]
    return [pd.DataFrame([pair[side] for pair in pairs]).mean() for side in (0, 1)]


def test_planted_errors_come_first():
    ranked, naive = mean_scores()
    assert ranked["precision_at_k"] >= 0.85
    assert ranked["recall_at_2k"] >= 0.95
    assert ranked["named_at_k"] >= 0.95
    for kind in KINDS:
        assert ranked[f"auc_{kind}"] >= 0.97, kind
        assert ranked[f"recall_at_2k_{kind}"] >= 0.9, kind
    assert ranked["precision_at_k"] >= naive["precision_at_k"] + 0.2


def test_a_poor_model_still_helps():
    noise = {"tremble": 0.08, "overlooked": 0.15, "confused": 0.2, "false_alarms": 1.5}
    ranked, naive = mean_scores(**noise)
    assert ranked["precision_at_k"] >= max(0.5, naive["precision_at_k"] + 0.05)
    for kind in KINDS:
        assert ranked[f"auc_{kind}"] >= 0.8, kind


def test_planting_does_what_it_says():
    right = make_scenes(0)
    before = right.copy()
    resolutions_wh = dict.fromkeys(right["image_id"].unique().tolist(), (300, 300))
    wrong, planted = plant_label_errors(right, resolutions_wh, 5, 0.05, 0)
    pd.testing.assert_frame_equal(right, before)
    number = round(len(right) * 0.05)
    assert planted["kind"].value_counts().to_dict() == dict.fromkeys(KINDS, number)
    assert len(wrong) == len(right)
    assert wrong["ann_id"].is_unique
    both = right.merge(wrong, on="ann_id", suffixes=("", "_now"))
    assert len(both) == len(right) - number
    swapped = both["ann_id"][both["class_id"] != both["class_id_now"]]
    moved = both["ann_id"][(both[XYXY].to_numpy() != both[[f"{name}_now" for name in XYXY]].to_numpy()).any(axis=1)]
    assert set(swapped) == set(planted["ann_id"][planted["kind"] == "wrong_class"])
    assert set(moved) == set(planted["ann_id"][planted["kind"] == "badly_placed"])
    again = plant_label_errors(right, resolutions_wh, 5, 0.05, 0)
    pd.testing.assert_frame_equal(again[0], wrong)
    assert not plant_label_errors(right, resolutions_wh, 5, 0.05, 1)[0].equals(wrong)


def test_the_measure_tells_a_perfect_list_from_a_useless_one():
    right = make_scenes(0)
    resolutions_wh = dict.fromkeys(right["image_id"].unique().tolist(), (300, 300))
    wrong, planted = plant_label_errors(right, resolutions_wh, 5, 0.02, 0)
    places = planted[XYXY].set_axis(PREDICTED_XYXY, axis=1)
    perfect = planted.drop(columns=XYXY).join(places).assign(score=1.0)
    clean = wrong[~wrong["ann_id"].isin(planted["ann_id"])]
    useless = clean[["image_id", "ann_id"]].assign(
        score=0.5, kind="wrong_class", **dict.fromkeys(PREDICTED_XYXY, np.nan)
    )
    best = score_ranking(pd.concat([perfect, useless], ignore_index=True), planted, wrong)
    assert best["precision_at_k"] == best["recall_at_2k"] == best["named_at_k"] == 1.0
    assert best["auc_wrong_class"] == 1.0
    worst = score_ranking(pd.concat([useless, perfect.assign(score=0.1)], ignore_index=True), planted, wrong)
    assert worst["precision_at_k"] == worst["recall_at_2k"] == 0.0
    assert worst["auc_wrong_class"] == 0.0
    # The same error found twice is found once.
    twice = pd.concat([perfect[:1]] * len(planted), ignore_index=True)
    assert score_ranking(twice, planted, wrong)["precision_at_k"] == pytest.approx(1 / len(planted))
    assert math.isnan(area_under_roc(np.zeros(0), np.ones(3)))
