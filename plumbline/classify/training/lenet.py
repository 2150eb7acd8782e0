"""A small convolutional network for digit-sized images."""

from __future__ import annotations

import torch
from torch import nn

WIDTHS = (16, 32)
HIDDEN = 120
# The grid that the dense layers see is at most so many cells high and wide.
LARGEST_GRID = 8
DROPOUT = 0.3


class LeNet(nn.Sequential):
    """LeNet-5's plan with what was found since: batch normalisation, ReLU, max-pooling, dropout.

    Blocks of a 5x5 convolution and a pooling by two, at least two of them and as many as bring the grid down to
    `LARGEST_GRID`, so that any input size works and the dense layers stay small; then two dense layers.

    Source: LeCun et al., Gradient-Based Learning Applied to Document Recognition, 1998.
    """

    def __init__(self, num_classes: int, image_size: int) -> None:
        """Lay out the layers.

        Args:
            num_classes: Length of the output.
            image_size: Side of the input, shape (N, 3, image_size, image_size), at least 4.
        """
        layers: list[nn.Module] = []
        channels, side, blocks = 3, image_size, 0
        while blocks < len(WIDTHS) or side > LARGEST_GRID:
            width = WIDTHS[min(blocks, len(WIDTHS) - 1)]
            layers += [
                nn.Conv2d(channels, width, kernel_size=5, padding=2, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(2),
            ]
            channels, side, blocks = width, side // 2, blocks + 1
        super().__init__(
            *layers,
            nn.Flatten(),
            nn.Dropout(DROPOUT),
            nn.Linear(channels * side * side, HIDDEN, bias=False),
            nn.BatchNorm1d(HIDDEN),
            nn.ReLU(inplace=True),
            nn.Dropout(DROPOUT),
            nn.Linear(HIDDEN, num_classes),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits of shape (N, num_classes)."""
        return super().forward(x)
