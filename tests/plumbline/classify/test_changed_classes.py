"""What a classifier newly takes for another class."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
from scored_runs import run_of
from small_reviews import images_in, no_image, revision_of

from plumbline.classify.reviewing.changed import COLUMNS, changed_classes, changed_sheet


def said(*rows):
    return pd.DataFrame(rows, columns=["image_id", "class_id", "confidence"])


TRUTH = pd.DataFrame({"image_id": range(6), "class_id": [0, 0, 1, 1, 2, 2]})
BASE = said((0, 0, 0.9), (1, 0, 0.8), (2, 1, 0.9), (3, 0, 0.9), (4, 0, 0.6), (5, 2, 0.9))


def test_images_newly_wrong_come_first_and_the_most_confident_of_them():
    head = said((0, 1, 0.5), (1, 2, 0.7), (2, 1, 0.4), (3, 1, 0.8), (4, 1, 0.9), (5, 2, 0.1))
    rows = changed_classes(TRUTH, BASE, head)
    assert rows.columns.tolist() == COLUMNS
    assert rows.values.tolist() == [
        [1, "newly wrong", 0, 0, 2, 0.8, 0.7],
        [0, "newly wrong", 0, 0, 1, 0.9, 0.5],
        [3, "newly right", 1, 0, 1, 0.9, 0.8],
        [4, "otherwise wrong", 2, 0, 1, 0.6, 0.9],
    ]


def test_the_order_of_rows_does_not_matter_and_equal_confidences_go_by_image():
    head = said((0, 1, 0.5), (1, 2, 0.5), (2, 1, 0.4), (3, 1, 0.8), (4, 1, 0.9), (5, 0, 0.5))
    rows = changed_classes(TRUTH.iloc[::-1], BASE, head.iloc[[3, 1, 5, 0, 2, 4]])
    assert rows["image_id"].tolist() == [0, 1, 5, 3, 4]


def test_the_same_answers_are_no_change():
    assert changed_classes(TRUTH, BASE, BASE.assign(confidence=0.3)).empty


def worse(run, image_ids, class_id=1):
    """The run with other answers for some of its images."""
    found = run.predictions["int8"].copy()
    for place in np.flatnonzero(found["image_id"].isin(image_ids)):
        wrong = (run.data.annotations["class_id"].iloc[place] + class_id) % 3
        probabilities = np.full(3, 0.1, np.float32)
        probabilities[wrong] = 0.8
        found.at[place, "probabilities"] = probabilities
        found.loc[place, ["class_id", "confidence"]] = [wrong, np.float32(0.8)]
    found = found.astype({"class_id": np.int64, "confidence": np.float32})
    return dataclasses.replace(run, predictions={"int8": found})


def right_in(run):
    found = run.predictions["int8"]
    return found.loc[found["class_id"].to_numpy() == run.data.annotations["class_id"].to_numpy(), "image_id"].tolist()


def test_the_sheet_shows_the_images_newly_wrong(tmp_path):
    run = run_of("classify")
    files = images_in(tmp_path, run.images)
    base = revision_of(run, "main", image_file=files)
    chosen = right_in(run)[:5]
    head = revision_of(worse(run, chosen), "x", image_file=files)
    sheets = {most: changed_sheet(base, head, "int8", most) for most in (2, 4, 9)}
    # Four to a row: the picture of two is narrower, that of all five has a second row.
    assert sheets[2].shape[1] < sheets[4].shape[1] == sheets[9].shape[1]
    assert sheets[9].shape[0] > sheets[4].shape[0] + 200
    assert (sheets[4] == 120).all(axis=2).sum() > 4 * 200 * 100  # the images themselves
    assert changed_sheet(base, head, "int8", 1).shape[1] > 880  # the title has room above a single one
    assert changed_sheet(base, base, "int8", 9).shape[0] < 200


def test_an_image_that_is_not_to_be_had_does_not_stop_the_sheet():
    run = run_of("classify")
    head = revision_of(worse(run, right_in(run)[:1]), "x", image_file=no_image)
    sheet = changed_sheet(revision_of(run, "main"), head, "int8", 9)
    assert (sheet == 120).all(axis=2).sum() < 100  # letters have some pixels of any grey
    assert sheet.shape[0] > 200


def test_a_class_that_only_the_base_has_is_no_obstacle():
    run = run_of("classify")
    base = revision_of(run, "main")
    data = dataclasses.replace(run.data, class_names=("cat", "dog", "cow", "horse"))
    more = dataclasses.replace(base, run=dataclasses.replace(base.run, data=data))
    head = revision_of(worse(run, right_in(run)[:1]), "x")
    assert changed_sheet(more, head, "int8", 9).shape == changed_sheet(base, head, "int8", 9).shape
