"""The chosen threshold, against trying every one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumbline.errors import EvaluationError
from plumbline.scores import ThresholdRule
from plumbline.thresholds import best_f1, choose

# Few distinct values, some of which only float32 or only float64 can tell apart.
VALUES = [0.0, 1e-9, 0.001, 0.25, 0.3, np.nextafter(0.3, 1), 0.3000001, 0.7, float(np.float32(0.7)), 0.70000005, 1.0]
JUDGED = st.lists(st.tuples(st.sampled_from(VALUES), st.booleans()), min_size=1, max_size=30)


def tried(confidence, hits, num_objects):
    """Return (confidence, precision, recall, F1) of every threshold that occurs."""
    rows = []
    for threshold in sorted(set(confidence.tolist()), reverse=True):
        shown = confidence >= threshold
        num_hits = int(hits[shown].sum())
        scores = num_hits / shown.sum(), num_hits / num_objects, 2 * num_hits / (shown.sum() + num_objects)
        rows.append((threshold, *scores))
    return rows


@given(judged=JUDGED, more=st.integers(0, 5), dtype=st.sampled_from([np.float32, np.float64]), asked=st.floats(0.01, 1))
def test_it_is_the_best_of_all_that_there_are(judged, more, dtype, asked):
    confidence = np.array([value for value, _ in judged], dtype=dtype)
    hits = np.array([hit for _, hit in judged])
    num_objects = int(hits.sum()) + more
    for rule in (ThresholdRule("best_f1", 0.0), ThresholdRule("precision", asked)):
        if not hits.any():
            with pytest.raises(EvaluationError, match=f"none of {len(hits)} predictions"):
                choose(confidence, hits, num_objects, rule)
            continue
        rows = tried(confidence, hits, num_objects)
        if rule.rule == "best_f1":
            expected = max(rows, key=lambda row: (row[3], row[0]))
            assert best_f1(confidence, hits, num_objects) == (pytest.approx(expected[3]), expected[0])
        else:
            enough = [row for row in rows if row[1] >= asked]
            if not enough:
                best = max(rows, key=lambda row: row[1])
                with pytest.raises(EvaluationError, match=f"got {best[1]:.4g} at the best one"):
                    choose(confidence, hits, num_objects, rule)
                continue
            expected = enough[-1]
        chosen = choose(confidence, hits, num_objects, rule)
        assert (chosen.precision, chosen.recall, chosen.f1) == pytest.approx(expected[1:])
        # What is at or above the number that is written down is what it was chosen for, in either type.
        assert chosen.confidence <= expected[0]
        assert ((confidence >= chosen.confidence) == (confidence >= expected[0])).all()
        assert ((confidence.astype(np.float64) >= chosen.confidence) == (confidence >= expected[0])).all()


def test_the_number_is_short_where_it_can_be():
    hits = np.array([True, False])
    rule = ThresholdRule("best_f1", 0.0)
    assert choose(np.array([0.123456789, 0.1]), hits, 1, rule).confidence == 0.123456
    assert choose(np.array([0.123456789, 0.1234561]), hits, 1, rule).confidence == 0.1234567
    assert choose(np.float32([0.7, 0.1]), hits, 1, rule).confidence == 0.699999


def test_an_unknown_rule_is_refused():
    with pytest.raises(EvaluationError, match="expected best_f1 or precision, got 'recall'"):
        choose(np.array([0.5]), np.array([True]), 1, ThresholdRule("recall", 0.5))
