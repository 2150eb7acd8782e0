"""The two pictures of a classification: the same bytes for the same scores, whatever there is to draw."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
from classification_cases import SETTINGS, make_case, random_case

from plumbline.classify.scoring import curves_picture, evaluate, worst_sheet
from plumbline.classify.scoring.predictions import put_together
from plumbline.classify.scoring.worst import worst_tiles
from plumbline.manifest import ANNOTATIONS_SCHEMA, FINDINGS_SCHEMA, Dataset, table


def scores_of(case):
    return evaluate(case.truth, case.predictions, case.images, case.class_names, SETTINGS)


def decoded(png):
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape[0] > 800
    assert image.std() > 5
    return image


@pytest.mark.parametrize(
    "case",
    [
        random_case(0, 40, 4),
        make_case([0], [[0.9, 0.1]]),
        random_case(1, 150, 90),
    ],
    ids=["usual", "one image", "90 classes"],
)
def test_curves_are_drawn_for_whatever_there_is(case):
    decoded(curves_picture(scores_of(case), "a title"))


def test_the_same_scores_give_the_same_bytes_and_others_do_not():
    case = random_case(0, 40, 4)
    first = curves_picture(scores_of(case), "a title")
    assert curves_picture(scores_of(case), "a title") == first
    assert curves_picture(scores_of(random_case(1, 40, 4)), "a title") != first


@pytest.fixture
def place(tmp_path):
    """Four images of 8 x 8, each of its own grey; 3 and 9 are wrong, 9 with more confidence."""
    case = make_case([0, 0, 1, 1], [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3]])
    (tmp_path / "images").mkdir()
    for number in range(4):
        cv2.imwrite(str(tmp_path / f"images/{number}.png"), np.full((8, 8, 3), 60 + 40 * number, np.uint8))
    empty = table([], ANNOTATIONS_SCHEMA), table([], FINDINGS_SCHEMA)
    return case, Dataset(case.images, *empty, ("cat", "dög"), tmp_path)


def test_the_most_confident_mistake_comes_first(place):
    case, dataset = place
    scored = put_together(case.truth, case.predictions, case.images, dataset.class_names)
    tiles = worst_tiles(dataset, case.images, scored, replace(SETTINGS, confidence_threshold=0.65))
    assert [tile.caption for tile in tiles] == [
        "dog, taken for cat\ncat 0.700\ndog 0.300\nimages/3.png",
        "cat, taken for dog\ndog 0.600, not accepted\ncat 0.400\nimages/1.png",
    ]
    assert [tile.path.name for tile in tiles] == ["3.png", "1.png"]
    assert len(worst_tiles(dataset, case.images, scored, replace(SETTINGS, worst=1))) == 1


def test_small_images_are_enlarged(place):
    case, dataset = place
    sheet = worst_sheet(dataset, case.images, case.truth, case.predictions, SETTINGS, "a title")
    # 8 times 8 pixels of the grey of image 3.
    assert (sheet == 180).all(axis=2).sum() >= 64 * 64 * 0.9
    assert not (sheet == 140).all(axis=2).sum() >= 64 * 64 * 0.9


def test_no_mistake_and_a_missing_file_are_said(place):
    case, dataset = place
    right = make_case([0, 1], [[0.9, 0.1], [0.1, 0.9]])
    sheet = worst_sheet(dataset, right.images, right.truth, right.predictions, SETTINGS, "a title")
    assert sheet.dtype == np.uint8
    (dataset.root / "images/3.png").unlink()
    assert worst_sheet(dataset, case.images, case.truth, case.predictions, SETTINGS, "a title").std() > 5


def test_the_order_of_rows_does_not_matter(place):
    case, dataset = place
    mixed = [frame.iloc[::-1] for frame in (case.images, case.truth, case.predictions)]
    want = worst_sheet(dataset, case.images, case.truth, case.predictions, SETTINGS, "a title")
    assert (worst_sheet(dataset, *mixed, SETTINGS, "a title") == want).all()
    assert isinstance(mixed[0], pd.DataFrame)
