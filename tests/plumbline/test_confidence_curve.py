"""Precision, recall and F1 against the threshold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline.confidence_curve import COLUMNS, confidence_rows

shown = st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), max_size=30)


@settings(max_examples=80, deadline=None)
@given(predictions=shown, missed=st.integers(0, 3), lowest=st.sampled_from([0.0, 0.001, 0.3]), data=st.data())
def test_every_row_is_what_counting_at_its_threshold_gives(predictions, missed, lowest, data):
    confidence = np.array([c for c, _ in predictions], dtype=np.float32)
    right = np.array([r for _, r in predictions], dtype=bool)
    marked = data.draw(st.lists(st.sampled_from([*confidence.tolist(), 0.7, 0.123]), max_size=2))
    num_objects = int(right.sum()) + missed
    rows = confidence_rows(confidence, right, num_objects, lowest=lowest, marked=marked)
    assert tuple(rows) == COLUMNS
    assert rows["confidence"].is_monotonic_increasing
    assert rows["confidence"].is_unique
    assert set(marked) <= set(rows["confidence"])
    assert 70 <= len(rows) <= 110
    for row in rows.itertuples():
        kept = confidence >= row.confidence  # float32 against a Python float, as `Detections.above` does
        hits = int(right[kept].sum())
        expected = [(hits, kept.sum()), (hits, num_objects), (2 * hits, kept.sum() + num_objects)]
        wanted = [part / whole if whole else np.nan for part, whole in expected]
        assert [row.precision, row.recall, row.f1] == pytest.approx(wanted, nan_ok=True, abs=1e-12)


def test_a_threshold_that_float32_rounds_keeps_what_equals_it():
    rows = confidence_rows(np.array([0.7], dtype=np.float32), np.array([True]), 1, lowest=0.0, marked=[0.7])
    assert rows.set_index("confidence").loc[0.7].tolist() == [1.0, 1.0, 1.0]


def test_nothing_at_all_is_undefined():
    rows = confidence_rows(np.zeros(0, dtype=np.float32), np.zeros(0, dtype=bool), 0, lowest=0.0)
    assert rows[["precision", "recall", "f1"]].isna().all(axis=None)
