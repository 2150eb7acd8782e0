"""Which blocks int8 hurts most, on a network whose noise is known."""

from __future__ import annotations

import json

import numpy as np
import pytest

from plumbline.quantization.recipes import Block, Quantizer, Recipe, Written
from plumbline.quantization.sensitivity import order_of, rank_blocks, squared_errors

NAMES = ("a", "b", "c", "d")
# What int8 in a block does to boxes, whose numbers are large, and to class logits, whose numbers are small.
NOISE = {"a": (0.0, 0.0), "b": (10.0, 0.0), "c": (20.0, 0.01), "d": (1.0, 0.09)}
KINDS = [[0], [1]]


def fp32(tensor):
    return [tensor * 100, tensor[:, :1]]


def write(folder, recipe):
    in_int8 = [name for name in NAMES if name not in recipe.float_blocks]
    (folder / "file").write_text(json.dumps(in_int8))
    return Written(4, len(in_int8), recipe.float_blocks, {})


def open_engine(folder):
    box, cls = (sum(NOISE[name][kind] for name in json.loads((folder / "file").read_text())) for kind in (0, 1))
    return lambda tensor: [fp32(tensor)[0] + np.float32(box), fp32(tensor)[1] + np.float32(cls)]


def test_boxes_and_classes_count_alike_whatever_their_size(tmp_path):
    tensors = [np.full((1, 3, 2, 2), value, np.float32) for value in (0.1, 0.5)]
    expected = [fp32(tensor) for tensor in tensors]
    quantizer = Quantizer(("minmax",), ("all",), tuple(Block(name, 0.25) for name in NAMES), write)
    ranked = rank_blocks(
        quantizer, Recipe("minmax", "all"), open_engine, tensors, KINDS, expected=expected, work=tmp_path
    )
    # Squares: boxes 0, 100, 400, 1 of 501; classes 0, 0, 1, 81 of 82.
    assert ranked == ("d", "c", "b", "a")


def test_errors_are_summed_by_kind():
    got = [np.array([1.0, 2.0]), np.array([3.0]), np.array([5.0])]
    expected = [np.array([1.0, 0.0]), np.array([0.0]), np.array([1.0])]
    assert squared_errors(got, expected, [[0, 2], [1]]).tolist() == [4.0 + 16.0, 9.0]


@pytest.mark.parametrize("noise", [np.zeros((3, 2)), np.ones((3, 2))])
def test_equal_blocks_stay_in_the_order_of_the_network(noise):
    assert order_of(noise) == [0, 1, 2]
