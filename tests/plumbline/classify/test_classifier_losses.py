"""The loss against torch's own and the formula written out in numpy; the epoch's scores against scikit-learn."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score
from sklearn.utils.class_weight import compute_class_weight

from plumbline.classify.training.learner import Schedule, top1_and_macro_f1
from plumbline.classify.training.losses import Criterion, balanced_class_weights, batch_loss


def random_case(seed, num_images=7, num_classes=4):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (num_images, num_classes)).astype(np.float32)
    return logits, rng.integers(0, num_classes, num_images), rng.uniform(0.2, 3, num_classes)


def loss_of(logits, class_ids, weights, smoothing, gamma):
    criterion = Criterion(weights, smoothing=smoothing, gamma=gamma)
    class_ids = torch.as_tensor(class_ids)
    return batch_loss(criterion, torch.as_tensor(logits), class_ids, criterion.class_weights[class_ids].sum(), 0.3)


def loss_written_out(logits, class_ids, weights, smoothing, gamma):
    """One image and one class after the other, in float64."""
    total = 0.0
    for scores, class_id in zip(logits.astype(np.float64), class_ids, strict=True):
        p = np.exp(scores) / np.exp(scores).sum()
        for c in range(len(p)):
            q = smoothing / len(p) + (1 - smoothing if c == class_id else 0)
            total += weights[c] * q * (1 - p[c]) ** gamma * -np.log(p[c])
    return total / sum(weights[class_id] for class_id in class_ids)


@given(seed=st.integers(0, 1000), smoothing=st.sampled_from([0.0, 0.1, 0.4]), weighted=st.booleans())
def test_without_focus_it_is_torchs_cross_entropy(seed, smoothing, weighted):
    logits, class_ids, weights = random_case(seed)
    weights = weights if weighted else np.ones(4)
    expected = torch.nn.functional.cross_entropy(
        torch.tensor(logits),
        torch.tensor(class_ids),
        weight=torch.tensor(weights, dtype=torch.float32),
        label_smoothing=smoothing,
    )
    assert float(loss_of(logits, class_ids, weights, smoothing, 0.0)) == pytest.approx(float(expected), rel=1e-5)


@given(
    seed=st.integers(0, 1000),
    smoothing=st.sampled_from([0.0, 0.1]),
    gamma=st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0]),
)
def test_it_is_the_formula(seed, smoothing, gamma):
    logits, class_ids, weights = random_case(seed)
    expected = loss_written_out(logits, class_ids, weights, smoothing, gamma)
    assert float(loss_of(logits, class_ids, weights, smoothing, gamma)) == pytest.approx(expected, rel=1e-4)


def test_focal_loss_is_lin_et_als_where_nothing_is_smoothed():
    # FL(p) = -alpha (1 - p)^2 log(p), of one image with p = 0.75: logits ln 3 and 0.
    loss = loss_of(np.array([[np.log(3.0), 0.0]], np.float32), [0], np.ones(2), 0.0, 2.0)
    assert float(loss) == pytest.approx(-(0.25**2) * np.log(0.75), rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 2.0])
def test_gradients_are_numbers_where_probabilities_are_0_and_1(gamma):
    logits = torch.tensor([[300.0, 0.0, -300.0], [300.0, 0.0, -300.0]], requires_grad=True)
    criterion = Criterion(np.ones(3), smoothing=0.1, gamma=gamma)
    batch_loss(criterion, logits, torch.tensor([0, 2]), torch.tensor(2.0), 0.3).backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[1].abs().sum() > 0


def test_auxiliary_heads_count_with_their_weight():
    logits, class_ids, weights = random_case(1)
    others = [random_case(seed)[0] for seed in (2, 3)]
    criterion = Criterion(weights, smoothing=0.1, gamma=0.0)
    outputs = tuple(torch.tensor(values) for values in (logits, *others))
    total = batch_loss(
        criterion, (*outputs, None), torch.tensor(class_ids), torch.tensor(weights[class_ids].sum()), 0.3
    )
    main, *auxiliary = (float(loss_of(values, class_ids, weights, 0.1, 0.0)) for values in (logits, *others))
    assert float(total) == pytest.approx(main + 0.3 * sum(auxiliary), rel=1e-5)


def test_half_precision_logits_are_computed_with_in_single():
    logits, class_ids, weights = random_case(5)
    half = torch.tensor(logits).bfloat16()
    assert loss_of(half, class_ids, weights, 0.1, 2.0).dtype == torch.float32
    assert torch.equal(loss_of(half, class_ids, weights, 0.1, 2.0), loss_of(half.float(), class_ids, weights, 0.1, 2.0))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40))
def test_balanced_weights_are_scikit_learns(class_ids):
    present = np.unique(class_ids)
    expected = compute_class_weight("balanced", classes=present, y=np.array(class_ids))
    weights = balanced_class_weights(np.array(class_ids), 5)
    np.testing.assert_allclose(weights[present], expected)
    assert not np.delete(weights, present).any()
    assert weights[class_ids].mean() == pytest.approx(1.0)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60))
def test_scores_are_scikit_learns(pairs):
    truth, answers = np.array(pairs).T
    top1, macro_f1 = top1_and_macro_f1(confusion_matrix(truth, answers, labels=range(5)))
    assert top1 == pytest.approx(accuracy_score(truth, answers))
    # Over the classes with images, as `plumbline.classify.scoring` has it.
    labels = np.unique(truth)
    assert macro_f1 == pytest.approx(f1_score(truth, answers, labels=labels, average="macro", zero_division=0))


def test_the_learning_rate_goes_up_and_then_down_to_nothing():
    schedule = Schedule("AdamW", 1.0, 0.0, warmup_steps=10, total_steps=100)
    factors = [schedule.factor(step) for step in range(101)]
    assert factors[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert np.all(np.diff(factors[10:]) < 0)
    assert factors[55] == pytest.approx(0.5)
    assert factors[100] == pytest.approx(0.0, abs=1e-12)
    assert Schedule("SGD", 1.0, 0.0, warmup_steps=0, total_steps=1).factor(0) == 1.0
