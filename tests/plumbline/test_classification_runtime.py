"""A classifier on a device: from an image through a real ONNX file to probabilities."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax

from plumbline.errors import BackendError
from plumbline.runtime.artifact import DecodeSpec
from plumbline.runtime.classification import Classification, classify
from plumbline.runtime.session import Session, load_artifact

sys.path.insert(0, str(Path(__file__).parents[1] / "stages"))
from tiny_classifier import CLASSES, SIZE, confidence_of, write_tiny_classifier

LOGITS = arrays(np.float32, st.integers(2, 20), elements=st.floats(-2000, 2000, width=32))


@settings(max_examples=200)
@given(LOGITS, st.floats(0, 1))
def test_probabilities_are_scipys_softmax(logits, threshold):
    found = classify([logits[None]], len(logits), threshold)
    assert found.probabilities.dtype == np.float32
    assert found.probabilities == pytest.approx(softmax(logits.astype(np.float64)), abs=1e-7)
    assert found.probabilities.sum(dtype=np.float64) == pytest.approx(1, abs=1e-6)
    assert found.confidence == found.probabilities.max()
    assert found.class_id == found.probabilities.argmax()
    assert found.accepted == (np.float32(found.confidence) >= np.float32(threshold))


@settings(max_examples=100)
@given(LOGITS, st.integers(1, 25))
def test_top_is_sorted_and_of_equal_classes_the_first_comes_first(logits, count):
    found = classify([logits[None]], len(logits), 0.5)
    want = sorted(enumerate(found.probabilities.tolist()), key=lambda pair: (-pair[1], pair[0]))[:count]
    assert found.top(count) == want
    assert found.top(1) == [(found.class_id, found.confidence)]


@pytest.mark.parametrize("shape", [(1, 3), (3,), (1, 3, 1, 1)])
def test_axes_of_length_one_do_not_matter(shape):
    assert len(classify([np.zeros(shape, np.float32)], 3, 0.5).probabilities) == 3


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_no_numbers_are_refused(value):
    with pytest.raises(BackendError, match="the class scores are not finite"):
        classify([np.array([[0.0, value]])], 2, 0.5)


def test_another_number_of_classes_is_refused():
    with pytest.raises(BackendError, match=r"scores of shape \(1, 4\), expected one for each of the 3 classes"):
        classify([np.zeros((1, 4))], 3, 0.5)


def test_a_confidence_at_the_threshold_is_accepted_although_it_is_float32():
    # float32's 0.7 lies below 0.7.
    assert Classification(np.array([0.7, 0.3], np.float32), 0.7).accepted
    assert not Classification(np.array([0.7, 0.3], np.float32), 0.71).accepted


@pytest.fixture
def folder(tmp_path):
    write_tiny_classifier(tmp_path / "artifact")
    return tmp_path / "artifact"


def colored(class_id, brightness, shape_hw=(SIZE, SIZE)):
    image = np.zeros((*shape_hw, 3), np.uint8)
    image[..., 2 - class_id] = brightness
    return image


@pytest.mark.parametrize("class_id", range(3))
@pytest.mark.parametrize("brightness", [255, 128, 40])
def test_a_session_classifies_what_a_person_foresees(folder, class_id, brightness):
    session = load_artifact(folder)
    found = session.predict(colored(class_id, brightness))
    assert isinstance(found, Classification)
    assert found.class_id == class_id
    assert found.confidence == pytest.approx(confidence_of(brightness), abs=1e-3)
    assert found.confidence_threshold == 0.5
    assert found.accepted == (confidence_of(brightness) >= 0.5)
    assert session.predict(colored(class_id, brightness), confidence=0.001).accepted


def test_the_artifact_says_how_an_image_is_fitted(tmp_path, folder):
    from plumbline.runtime.artifact import Preprocessing

    # Red in the middle, green above and below: cropped it is all red, letterboxed it is not.
    image = np.concatenate([colored(1, 255, (SIZE, SIZE)), colored(0, 255), colored(1, 255)])
    write_tiny_classifier(tmp_path / "crop", preprocessing=Preprocessing(resize="crop"))
    cropped = load_artifact(tmp_path / "crop").predict(image)
    assert (cropped.class_id, cropped.confidence) == (0, pytest.approx(confidence_of(255), abs=1e-4))
    assert load_artifact(folder).predict(image).class_id == 1


def test_the_parts_of_a_query_are_timed(folder):
    found, times = load_artifact(folder).predict_timed(colored(2, 200))
    assert found.class_id == 2
    assert min(times.preprocess_ns, times.inference_ns, times.postprocess_ns) > 0


def test_an_artifact_with_more_names_than_the_network_has_classes_says_so(folder):
    import dataclasses

    session = load_artifact(folder)
    artifact = dataclasses.replace(session.artifact, class_names=(*CLASSES, "white"))
    with pytest.raises(BackendError, match=r"each of the 4 classes of artifact\.json; export the artifact again"):
        Session(artifact, session.engine).predict(colored(0, 255))


def test_a_classifier_decoded_as_a_detector_is_refused(tmp_path):
    write_tiny_classifier(tmp_path / "odd", decode=DecodeSpec(0.5, 0.7, 300))
    with pytest.raises(BackendError, match="a key is missing or unknown"):
        load_artifact(tmp_path / "odd")
