"""The loss of a classifier: cross-entropy or focal loss, with label smoothing and class weights."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

# Keeps the slope of (1 - p) ** gamma finite where p is 1 and gamma below 1.
LEAST_MISS = 1e-8


def balanced_class_weights(class_ids: npt.NDArray[np.int64], num_classes: int) -> npt.NDArray[np.float64]:
    """Return N / (C * n_c) for each class; 0 for those without images, which do not count in C either.

    Source: G. King, L. Zeng, "Logistic Regression in Rare Events Data", 2001; scikit-learn's ``balanced``.

    >>> balanced_class_weights(np.array([0, 0, 0, 2]), 3).round(3).tolist()
    [0.667, 0.0, 2.0]
    """
    counts = np.bincount(class_ids, minlength=num_classes)
    present = counts > 0
    return np.where(present, len(class_ids) / (present.sum() * np.maximum(counts, 1)), 0.0)


class Criterion(torch.nn.Module):
    """The loss of each image, and what it weighs in a mean.

    With q the label's distribution, (1 - s) for its class plus s / C for every class (s: smoothing), p the
    probabilities, w the class weights and g gamma, an image's loss is::

        sum over c of  w[c] * q[c] * (1 - p[c]) ** g * -log(p[c])

    and a batch's is the sum of these divided by the sum of w[label]. At g = 0 that is torch's ``cross_entropy`` with
    the same weights and smoothing; without smoothing it is focal loss with w for alpha.

    Source: T.-Y. Lin et al., "Focal Loss for Dense Object Detection", 2017; C. Szegedy et al., "Rethinking the
    Inception Architecture for Computer Vision", 2016 (smoothing).
    """

    def __init__(self, class_weights: npt.NDArray[np.float64], *, smoothing: float, gamma: float) -> None:
        super().__init__()
        self.smoothing, self.gamma = smoothing, gamma
        # Not persistent: it belongs to the data, not to the network.
        self.register_buffer("class_weights", torch.tensor(class_weights, dtype=torch.float32), persistent=False)

    def forward(self, logits: torch.Tensor, class_ids: torch.Tensor) -> torch.Tensor:
        """Return the loss of each image, not yet divided by weights.

        Args:
            logits: Shape (N, C); computed with in float32, whatever the network's precision.
            class_ids: Shape (N,).
        """
        log_p = torch.log_softmax(logits.float(), dim=1)
        terms = -log_p * self.class_weights
        if self.gamma:
            # 1 - p by expm1: the difference itself has no digits left where p is nearly 1.
            terms = terms * (-torch.expm1(log_p)).clamp_min(LEAST_MISS) ** self.gamma
        own = terms.gather(1, class_ids[:, None])[:, 0]
        return (1 - self.smoothing) * own + self.smoothing * terms.mean(dim=1)


def batch_loss(
    criterion: Criterion,
    outputs: torch.Tensor | tuple[torch.Tensor | None, ...],
    class_ids: torch.Tensor,
    total_weight: torch.Tensor,
    auxiliary_weight: float,
) -> torch.Tensor:
    """Return the loss of the main head plus that of every auxiliary head times its weight.

    Args:
        criterion: See `Criterion`.
        outputs: Logits of shape (N, C), or a tuple of them: the main head's, then the auxiliary ones'; None is no head.
        class_ids: Shape (N,).
        total_weight: The batch's sum of class weights; on several devices that of all their images.
        auxiliary_weight: Of each auxiliary head.
    """
    main, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
    assert main is not None
    total = criterion(main, class_ids).sum()
    for logits in auxiliary:
        if logits is not None:
            total = total + auxiliary_weight * criterion(logits, class_ids).sum()
    return total / total_weight
