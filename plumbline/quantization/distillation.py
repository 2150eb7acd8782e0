"""How far a network's raw outputs are from those of the network that it shall repeat.

No label is needed, and nothing of how the network was trained: what counts is what it says of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn.functional import kl_div, log_softmax, softplus

from plumbline.runtime.artifact import ClassifierOutputs, OutputSpec

Tensors = Sequence[torch.Tensor]
# (student's outputs, teacher's outputs) -> a number, 0 where they agree
Distance = Callable[[Tensors, Tensors], torch.Tensor]

# Teacher's confidences in one image that sees nothing add up to nearly nothing; the loss must not be divided by that.
LEAST_CONFIDENCE = 1.0


def distance_for(outputs: OutputSpec | ClassifierOutputs) -> Distance:
    """Return the distance that fits a network's outputs."""
    if isinstance(outputs, ClassifierOutputs):
        return lambda student, teacher: classifier_distance(student[0], teacher[0])
    return lambda student, teacher: detector_distance(student, teacher, outputs.reg_max)


def classifier_distance(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Return the Kullback-Leibler divergence of the teacher's classes from the student's, nats, mean over images.

    Args:
        student: Logits, shape (N, C).
        teacher: Logits, shape (N, C).

    >>> float(classifier_distance(torch.tensor([[2.0, 1.0]]), torch.tensor([[5.0, 4.0]])))
    0.0
    """
    return kl_div(log_softmax(student, 1), log_softmax(teacher, 1), reduction="batchmean", log_target=True)


def detector_distance(student: Tensors, teacher: Tensors, reg_max: int) -> torch.Tensor:
    """Return how far classes and boxes are apart, in units of one object that the teacher is sure of.

    Every cell counts for the classes, so that no new object appears; for the boxes a cell counts as much as the teacher
    is sure that there is an object.

    Args:
        student: Per stride box (N, 4 * reg_max, h, w) and class logits (N, C, h, w), as a split head gives them.
        teacher: The same.
        reg_max: See `plumbline.runtime.artifact.OutputSpec`.
    """
    apart = student[0].new_zeros(())
    sure = student[0].new_zeros(())
    for box_s, box_t, logits_s, logits_t in zip(student[::2], teacher[::2], student[1::2], teacher[1::2], strict=True):
        confidence = logits_t.sigmoid().amax(1)
        boxes = _bins_apart if reg_max > 1 else _sides_apart
        apart = apart + _classes_apart(logits_s, logits_t) + (confidence * boxes(box_s, box_t)).sum()
        sure = sure + confidence.sum()
    return apart / sure.clamp(min=LEAST_CONFIDENCE)


def _classes_apart(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Return the divergence of each cell's and class's yes or no, summed."""
    # In double: numbers that nearly agree are subtracted, and most cells see nothing at all.
    student, teacher = student.double(), teacher.double()
    apart = softplus(student) - softplus(teacher) - teacher.sigmoid() * (student - teacher)
    return apart.sum().float()


def _bins_apart(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Return the divergence of each cell's four distributions over the bins, summed: (N, h, w)."""
    batch, channels, height, width = student.shape
    got, wanted = (log_softmax(box.view(batch, 4, channels // 4, height, width), 2) for box in (student, teacher))
    return kl_div(got, wanted, reduction="none", log_target=True).sum((1, 2))


def _sides_apart(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Return each cell's four differences of the sides' distances, as shares of the box's sides, summed: (N, h, w)."""
    left, top, right, bottom = teacher.unbind(1)
    sides = torch.stack([left + right, top + bottom] * 2, 1).clamp(min=1.0)
    return ((student - teacher).abs() / sides).sum(1)
