"""The sheet of the worst mistakes."""

import cv2
import numpy as np
import pandas as pd
import pytest

from plumbline.detect.scoring.matching import XYXY
from plumbline.detect.scoring.worst import FALSE_ALARM, MISSED, RIGHT, WRONG_CLASS, worst_images, worst_sheet
from plumbline.manifest import Dataset
from plumbline.scores import ScoringSettings

CLASSES = ("cat", "dog", "owl")


def settings_of(worst=12, difficult="count", threshold=0.4):
    return ScoringSettings(threshold, 0.001, difficult, (), 3, worst)


def truth_rows(rows):
    return pd.DataFrame(rows, columns=["image_id", "class_id", *XYXY])


def found_rows(rows):
    frame = pd.DataFrame(rows, columns=["image_id", "class_id", "confidence", *XYXY])
    return frame.astype({"confidence": np.float32, **dict.fromkeys(XYXY, np.float32)})


HERE, THERE = (10, 10, 60, 60), (90, 30, 150, 80)


def ranking(truth, found, image_ids, **options):
    pairs = worst_images(truth_rows(truth), found_rows(found), image_ids, settings_of(**options))
    return pairs.drop_duplicates("image_id").set_index("image_id")["image_badness"].round(5).to_dict()


def test_what_the_model_has_no_idea_of_is_worse_than_what_it_nearly_found():
    truth = [(image_id, 0, *HERE) for image_id in range(5)]
    found = [
        (0, 0, 0.9, *HERE),
        (1, 0, 0.35, *HERE),  # below the threshold
        (2, 1, 0.9, *HERE),  # another class
        (2, 0, 0.25, *HERE),
        (4, 0, 0.9, *HERE),
        (4, 0, 0.7, *THERE),
    ]
    expected = {2: 0.75 + 0.9, 3: 1.0, 4: 0.7, 1: 0.65}
    assert ranking(truth, found, range(5)) == pytest.approx(expected, abs=1e-5)
    assert list(ranking(truth, found, range(5))) == list(expected)


def test_a_second_detection_of_a_box_is_a_false_alarm():
    assert ranking([(0, 0, *HERE)], [(0, 0, 0.9, *HERE), (0, 0, 0.8, *HERE)], [0]) == {0: pytest.approx(0.8)}


def test_ignored_boxes_are_no_mistakes():
    pairs = worst_images(
        truth_rows([(0, 0, *HERE), (1, 0, *HERE)]).assign(difficult=True, crowd=[False, True]),
        found_rows([(1, 0, 0.9, *HERE), (1, 0, 0.9, *HERE)]),
        [0, 1],
        settings_of(difficult="ignore"),
    )
    assert pairs.empty


def test_equally_bad_images_come_in_their_own_order_and_row_order_does_not_matter():
    truth, found = [(n, 0, *HERE) for n in (3, 1, 2)], [(n, 1, 0.5, *THERE) for n in (2, 3)]
    assert list(ranking(truth, found, [1, 2, 3])) == [2, 3, 1]
    assert list(ranking(truth[::-1], found[::-1], [1, 2, 3])) == [2, 3, 1]


@pytest.fixture
def dataset(tmp_path):
    """Four grey images, the third of which is gone."""
    for number in (0, 1, 3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((120, 160, 3), 200, np.uint8))
    images = pd.DataFrame({"image_id": range(4), "path": [f"{number}.png" for number in range(4)]})
    return Dataset(images, truth_rows([]), pd.DataFrame(), CLASSES, tmp_path)


def sheet(dataset, truth, found, **options):
    return worst_sheet(
        dataset, dataset.images, truth_rows(truth), found_rows(found), settings_of(**options), "onnx-int8, test"
    )


def count(image, color):
    """Pixels of a colour, below the heading with its legend."""
    return int((image[75:] == color).all(axis=2).sum())


def test_each_kind_of_mistake_has_its_colour(dataset):
    right = (0, 0, *HERE), (0, 0, 0.9, *HERE)
    kinds = {
        MISSED: ([right[0], (0, 1, *THERE)], [right[1]]),
        FALSE_ALARM: ([right[0]], [right[1], (0, 1, 0.8, *THERE)]),
        WRONG_CLASS: ([right[0], (0, 1, *THERE)], [right[1], (0, 2, 0.8, *THERE)]),
    }
    for color, (truth, found) in kinds.items():
        image = sheet(dataset, truth, found)
        assert count(image, color) > 100
        assert count(image, RIGHT) > 100
        assert not any(count(image, other) for other in kinds if other != color)


def test_the_sheet_has_as_many_images_as_asked_for_and_the_worst_of_them(dataset):
    truth, found = [(n, 0, *HERE) for n in range(4)], [(3, 1, 0.9, *THERE)]
    all_four, one = sheet(dataset, truth, found), sheet(dataset, truth, found, worst=1)
    assert all_four.shape[0] > one.shape[0]
    assert all_four.shape[1] > one.shape[1]
    assert count(one, FALSE_ALARM) > 0  # of image 3


def test_nothing_wrong_gives_a_sheet_that_says_so(dataset):
    image = sheet(dataset, [(0, 0, *HERE)], [(0, 0, 0.9, *HERE)])
    assert image.shape[0] < 600
    assert (image < 100).any()
    assert not count(image, RIGHT)


def test_a_class_of_any_name_and_hundreds_of_mistakes_are_drawn(dataset):
    named = Dataset(dataset.images, dataset.annotations, dataset.findings, ("血小板", "$x", ""), dataset.root)
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 120, (400, 2))
    truth = [(0, n % 3, *at, *(at + 20)) for n, at in enumerate(corner)]
    assert sheet(named, truth, []).shape == sheet(dataset, truth, []).shape


def test_the_same_input_gives_the_same_pixels_and_is_left_as_it_was(dataset):
    truth, found = truth_rows([(n, 0, *HERE) for n in range(4)]), found_rows([(3, 1, 0.9, *THERE)])
    before = truth.copy(), found.copy()
    first, again = (worst_sheet(dataset, dataset.images, truth, found, settings_of(), "title") for _ in range(2))
    assert (first == again).all()
    pd.testing.assert_frame_equal(truth, before[0])
    pd.testing.assert_frame_equal(found, before[1])


def test_on_bccd_the_image_with_planted_mistakes_comes_first(bccd, tmp_path):
    from plumbline.commands import read_any
    from plumbline.detect.scoring import truth_of

    data = read_any(str(bccd), "auto", None, tmp_path)
    images = data.images.iloc[:60]
    truth = truth_of(data, images)
    found = truth[["image_id", "class_id", *XYXY]].assign(confidence=0.9)
    victim = int(truth["image_id"].value_counts().index[0])
    found.loc[found["image_id"] == victim, ["x1", "x2"]] += 1000.0
    settings = settings_of()
    pairs = worst_images(truth, found, images["image_id"].tolist(), settings)
    assert pairs["image_id"].iloc[0] == victim
    number = int((truth["image_id"] == victim).sum())
    assert pairs["image_badness"].iloc[0] == pytest.approx(number * 1.9, abs=1e-6)
    assert count(worst_sheet(data, images, truth, found, settings, "title"), MISSED) > 1000
