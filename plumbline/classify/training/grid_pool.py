"""Adaptive pooling to a grid, in a form that every engine has."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class GridPool(nn.Module):
    """Average pooling of (N, C, H, W) to (N, C, rows, columns), as `torch.nn.AdaptiveAvgPool2d` does it.

    That one has no ONNX form where H is no multiple of the rows (AlexNet and VGG on inputs smaller than 224): the same
    averages are a product with one matrix for each direction.
    """

    def __init__(self, grid_hw: tuple[int, int]) -> None:
        """Say what comes out.

        Args:
            grid_hw: Rows and columns.
        """
        super().__init__()
        self.grid_hw = grid_hw

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool."""
        # Numbers also while torch traces, where they would be tensors: the input's size is fixed.
        size_hw = (int(x.shape[-2]), int(x.shape[-1]))
        if size_hw == self.grid_hw:
            return x
        steps = tuple(size // cells for size, cells in zip(size_hw, self.grid_hw, strict=True))
        if all(step * cells == size for step, cells, size in zip(steps, self.grid_hw, size_hw, strict=True)):
            return functional.avg_pool2d(x, steps)
        rows, columns = (averaging_matrix(size, cells).to(x) for size, cells in zip(size_hw, self.grid_hw, strict=True))
        return torch.matmul(torch.matmul(rows, x), columns.T)


def averaging_matrix(size: int, cells: int) -> torch.Tensor:
    """Return the matrix of shape (cells, size) that averages a vector into cells, which overlap where they must.

    Cell i reaches from floor(i * size / cells) to ceil((i + 1) * size / cells), as in PyTorch.

    >>> averaging_matrix(3, 2)
    tensor([[0.5000, 0.5000, 0.0000],
            [0.0000, 0.5000, 0.5000]])
    """
    # From plain numbers: while torch traces, arithmetic on tensors would become nodes of the graph.
    reaches = [(cell * size // cells, -((cell + 1) * -size // cells)) for cell in range(cells)]
    return torch.tensor(
        [[1 / (end - start) if start <= index < end else 0.0 for index in range(size)] for start, end in reaches]
    )


def replace_grid_pools(network: nn.Module) -> None:
    """Put a `GridPool` for every adaptive pooling of a network to more than one cell."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.AdaptiveAvgPool2d and child.output_size not in {1, (1, 1)}:
                size = child.output_size
                rows, columns = (size, size) if isinstance(size, int) else size
                if rows is not None and columns is not None:
                    setattr(parent, name, GridPool((rows, columns)))
