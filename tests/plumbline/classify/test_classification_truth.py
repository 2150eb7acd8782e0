"""Labels and predictions that cannot be scored are refused, with the place and what to do."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from classification_cases import SETTINGS, make_case
from dataset_rows import NAN4, box, image

from plumbline.classify.scoring import PREDICTIONS_SCHEMA, evaluate, prediction_rows, truth_of
from plumbline.errors import EvaluationError
from plumbline.manifest import ANNOTATIONS_SCHEMA, FINDINGS_SCHEMA, IMAGES_SCHEMA, Dataset, table, write_table
from plumbline.runtime.classification import Classification


def data(*labels, num_images=2, class_names=("RBC", "WBC")):
    images = table([image(number) for number in range(num_images)], IMAGES_SCHEMA)
    return Dataset(images, table(list(labels), ANNOTATIONS_SCHEMA), table([], FINDINGS_SCHEMA), class_names, None)


def whole(image_id, class_id, ann_id=None, **values):
    return box(image_id if ann_id is None else ann_id, NAN4, image_id=image_id, class_id=class_id, **values)


def test_one_class_for_each_image_in_the_order_of_image_id():
    dataset = data(whole(2, 0), whole(0, 1), whole(1, 0), num_images=3)
    some = dataset.images[dataset.images["image_id"] != 1].iloc[::-1]
    truth = truth_of(dataset, some)
    assert truth.to_dict("list") == {"image_id": [0, 2], "class_id": [1, 0]}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            [whole(0, 0), box(1, image_id=1), box(2, image_id=1)],
            r"^in/1\.xml:11: a box, expected one class for the whole image, got 2 boxes on 1 images; say task: detect",
        ),
        ([whole(1, 0)], r"^images/0\.jpg: expected one class, got no label \(1 such images\); label it"),
        (
            [whole(0, 0), whole(1, 0), whole(1, 1, ann_id=7, source_line=0)],
            r"^in/1\.xml: a second class for its image, expected one, got RBC, WBC \(1 such images\); correct",
        ),
        ([whole(0, 0), whole(1, -1)], r"^in/1\.xml:11: the class '\?', expected one of RBC, WBC"),
        ([whole(0, 0), whole(1, 2)], r"^in/1\.xml:11: the class '\?', expected one of RBC, WBC"),
    ],
)
def test_labels_that_do_not_fit_are_named(labels, message):
    dataset = data(*labels)
    with pytest.raises(EvaluationError, match=message):
        truth_of(dataset, dataset.images)


def test_what_is_wrong_in_another_split_does_not_matter():
    dataset = data(whole(0, 1), box(1, image_id=1))
    assert len(truth_of(dataset, dataset.images[:1])) == 1


def score(case, **changed):
    values = {"truth": case.truth, "predictions": case.predictions, "images": case.images} | changed
    return evaluate(*values.values(), case.class_names, SETTINGS)


@pytest.fixture
def case():
    return make_case([0, 1, 1], [[0.6, 0.4], [0.3, 0.7], [0.2, 0.8]])


def with_row(case, place, **values):
    rows = case.predictions.copy()
    for column, value in values.items():
        rows[column] = [value if i == place else old for i, old in enumerate(rows[column])]
    return rows


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probabilities": np.array([np.nan, 1])}, "image_id 3: expected finite probabilities, got nan"),
        ({"probabilities": np.array([np.inf, 1])}, "image_id 3: expected finite probabilities"),
        ({"probabilities": np.array([-0.5, 1.5])}, r"image_id 3: expected probabilities of 0 or more, got -0\.5"),
        ({"probabilities": np.array([0.3, 0.6])}, r"image_id 3: expected probabilities that add up to 1, got 0\.9"),
        ({"probabilities": np.array([0.1, 0.2, 0.7])}, "image_id 3: expected 2 probabilities, got 3"),
        ({"class_id": 2}, r"predictions: image_id 3: expected a class_id of 0\.\.1, got 2 \(1 such rows\)"),
        ({"class_id": -1}, r"expected a class_id of 0\.\.1, got -1"),
        ({"class_id": 0}, "expected the confidence and the class_id of the highest probability"),
        ({"class_id": 0, "confidence": np.float32(0.3)}, "expected the confidence and the class_id of the highest"),
        ({"confidence": 0.9}, r"of the highest probability, got 0\.9"),
        ({"confidence": np.nan}, "of the highest probability, got nan"),
        ({"image_id": 0}, "predictions: image_id 0: expected one prediction, got two or more"),
        ({"image_id": 99}, "predictions: image_id 99: expected only the images scored"),
    ],
)
def test_predictions_that_are_none_are_refused(case, change, message):
    with pytest.raises(EvaluationError, match=message):
        score(case, predictions=with_row(case, 1, **change))


def test_every_image_needs_a_prediction_and_a_label(case):
    with pytest.raises(EvaluationError, match="predictions: image_id 6: expected one prediction, got none"):
        score(case, predictions=case.predictions[:2])
    with pytest.raises(EvaluationError, match="truth: image_id 0: expected one label, got none"):
        score(case, truth=case.truth[1:])
    with pytest.raises(EvaluationError, match=r"truth: image_id 3: expected a class_id of 0\.\.1, got 5"):
        score(case, truth=case.truth.assign(class_id=[0, 5, 1]))


def test_no_images_and_an_image_twice(case):
    with pytest.raises(EvaluationError, match="no images to score, expected one or more"):
        score(case, images=case.images[:0], predictions=case.predictions[:0])
    with pytest.raises(EvaluationError, match="an image is named twice"):
        score(case, images=pd.concat([case.images, case.images]))


def test_rows_of_a_session_can_be_written_read_and_scored(tmp_path, case):
    frames = [
        pd.DataFrame(prediction_rows(image_id, Classification(row, 0.5)))
        for image_id, row in zip(case.images["image_id"], case.probabilities, strict=True)
    ]
    rows = pd.concat(frames, ignore_index=True)
    write_table(rows, PREDICTIONS_SCHEMA, tmp_path / "predictions.parquet")
    read = pq.read_table(tmp_path / "predictions.parquet")
    assert read.schema.equals(PREDICTIONS_SCHEMA)
    assert list(rows) == PREDICTIONS_SCHEMA.names
    assert score(case, predictions=read.to_pandas()).metrics == score(case, predictions=rows).metrics
    assert score(case).metrics == score(case, predictions=rows).metrics
