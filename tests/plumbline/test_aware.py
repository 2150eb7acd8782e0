"""The fine-tune for int8: its arithmetic against ONNX Runtime's, its gradients, and that it mends what int8 breaks."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static
from untrained_detector import make_checkpoint

from plumbline.errors import TrainingError
from plumbline.networks import Network, export_onnx
from plumbline.quantization import aware
from plumbline.quantization.aware import AwareSettings, fine_tune
from plumbline.quantization.distillation import classifier_distance, detector_distance, distance_for
from plumbline.quantization.fake_quantization import (
    INPUT_LEVELS,
    INT8,
    FakeQuantized,
    Levels,
    round_input,
    round_weight,
)
from plumbline.runtime.artifact import ClassifierOutputs, InputSpec, Preprocessing

SETTINGS = AwareSettings(steps=40, batch=8, learning_rate=1e-3, seed=0, activations="asymmetric", largest_weight=127)


def silent(_line: str) -> None:
    """Say nothing."""


class SmallClassifier(torch.nn.Module):
    """Convolutions, a depthwise one among them, and a matrix product; logits in a tuple."""

    def __init__(self, spread: float = 1.0) -> None:
        """Scale the channels between two layers apart, which changes nothing in float and much in int8."""
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 3, 2, 1),
            torch.nn.ReLU(inplace=True),
            torch.nn.Conv2d(16, 16, 3, 1, 1, groups=16),
            torch.nn.ReLU(inplace=True),
            torch.nn.Conv2d(16, 24, 1),
            torch.nn.SiLU(inplace=True),
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
            torch.nn.Linear(24, 5),
        )
        with torch.no_grad():
            for parameter in self.parameters():
                fan_in = parameter[0].numel() if parameter.ndim > 1 else 100
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * (2 / fan_in) ** 0.5)
            self.body[8].weight.mul_(8)
            scales = torch.logspace(0, np.log10(spread), 16)
            self.body[2].weight.mul_(scales.view(-1, 1, 1, 1))
            self.body[2].bias.mul_(scales)
            self.body[4].weight.div_(scales.view(1, -1, 1, 1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.body(x),)


def classifier(spread: float = 1.0) -> Network:
    module = SmallClassifier(spread).eval().requires_grad_(False)
    return Network(module, InputSpec("images", (24, 24)), Preprocessing(), ClassifierOutputs())


def images(count: int, size: int = 24, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    coarse = rng.random((count, 3, 6, 6)).repeat(-(-size // 6), 2).repeat(-(-size // 6), 3)[:, :, :size, :size]
    return [x[None] for x in np.clip(coarse + rng.normal(0, 0.1, coarse.shape), 0, 1).astype(np.float32)]


def detector(tmp_path_factory, model: str) -> Network:
    from plumbline.yolo.network import load_network

    path = tmp_path_factory.mktemp(model) / "best.pt"
    make_checkpoint(path, model, num_classes=3, image_size=64)
    return load_network(path)


@pytest.fixture(scope="module", params=["yolo11n", "yolo26n"])
def network(request, tmp_path_factory) -> Network:
    return detector(tmp_path_factory, request.param)


def error_in_int8(network: Network, teacher: Network, tensors: list[np.ndarray], weights: Levels = INT8) -> float:
    """Return the distance of a network in int8, its ranges taken anew as a backend takes them, to another in float."""
    rounded = FakeQuantized(copy.deepcopy(network.module), INPUT_LEVELS["asymmetric"], weights)
    batch = torch.from_numpy(np.concatenate(tensors))
    rounded.calibrate([batch])
    with torch.no_grad():
        return float(distance_for(network.outputs)(rounded(batch), teacher.module(batch)))


def tensors_of(network: Network) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.module.state_dict().items()}


def write_int8(source: Path, target: Path, tensors: list[np.ndarray], *, seven_bits: bool = False) -> None:
    """Quantize a file with ONNX Runtime's own quantizer."""
    left = iter(tensors)

    class Reader(CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            tensor = next(left, None)
            return None if tensor is None else {"images": tensor}

    quantize_static(
        str(source),
        str(target),
        Reader(),
        per_channel=True,
        reduce_range=seven_bits,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
    )


def error_of_file(network: Network, teacher: Network, train: list[np.ndarray], other: list[np.ndarray], folder: Path):
    """Return the distance of a network's int8 file of 7-bit weights, as ONNX Runtime computes it, to another in float.

    7 bits, because processors without VNNI add up wrongly with 8.
    """
    export_onnx(network, 17, folder / "fp32.onnx")
    write_int8(folder / "fp32.onnx", folder / "int8.onnx", train, seven_bits=True)
    session = onnxruntime.InferenceSession(str(folder / "int8.onnx"))
    logits = np.concatenate([session.run(None, {"images": tensor})[0] for tensor in other])
    with torch.no_grad():
        wanted = teacher.module(torch.from_numpy(np.concatenate(other)))
    return float(distance_for(network.outputs)([torch.from_numpy(logits)], wanted))


# Arithmetic


def onnx_rounded(x: np.ndarray, scale: np.ndarray, zero: np.ndarray, axis: int) -> np.ndarray:
    """Run QuantizeLinear and DequantizeLinear."""
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], axis=axis),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"], axis=axis),
        ],
        "rounding",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, x.shape)],
        [numpy_helper.from_array(scale, "scale"), numpy_helper.from_array(zero, "zero")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]


@given(
    seed=st.integers(0, 2**16),
    low=st.floats(-50, 0, width=32),
    high=st.floats(0.0625, 50, width=32),
    kind=st.sampled_from(sorted(INPUT_LEVELS)),
)
@settings(max_examples=30)
def test_an_input_is_rounded_as_onnx_does_it(seed, low, high, kind):
    x = np.random.default_rng(seed).uniform(1.2 * low - 0.1, 1.2 * high, (2, 3, 5)).astype(np.float32)
    levels = INPUT_LEVELS[kind]
    if kind == "symmetric":
        scale, zero = np.float32(max(-low, high) / 127), np.int8(0)
        x_in = np.clip(x, -127 * scale, 127 * scale)  # ONNX's int8 goes on to -128
    else:
        scale = np.float32((high - low) / 255)
        zero, x_in = np.uint8(round(-low / float(scale))), x
    expected = onnx_rounded(x_in, np.array(scale), np.array(zero), 1)
    rounded = round_input(torch.from_numpy(x), low, high, levels).numpy()
    # A value half-way between two levels may fall on either side: torch multiplies where ONNX divides.
    half_way = np.abs(np.abs(x / scale % 1) - 0.5) < 1e-4
    np.testing.assert_allclose(rounded[~half_way], expected[~half_way], rtol=1e-6, atol=1e-6 * scale)
    assert np.abs(rounded - expected).max() <= scale * 1.001


def test_a_convolution_with_rounded_weights_and_inputs_is_the_one_of_a_qdq_file(tmp_path):
    torch.manual_seed(1)
    conv = torch.nn.Conv2d(3, 8, 3, padding=1, bias=False).eval()
    x = torch.randn(1, 3, 12, 12) + 0.7
    torch.onnx.export(conv, (x,), str(tmp_path / "conv.onnx"), input_names=["images"], opset_version=17, dynamo=False)
    write_int8(tmp_path / "conv.onnx", tmp_path / "int8.onnx", [x.numpy()])
    # Only what comes before the output's own rounding, in float: so no kernel of int8 has a say.
    model = onnx.load(str(tmp_path / "int8.onnx"))
    node = next(node for node in model.graph.node if node.op_type == "Conv")
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    expected = onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, {"images": x.numpy()})[0]

    rounded = FakeQuantized(conv, INPUT_LEVELS["asymmetric"])
    rounded.calibrate([x])
    with torch.no_grad():
        np.testing.assert_allclose(rounded(x).numpy(), expected, rtol=0, atol=2e-6)
        assert np.abs(conv(x).numpy() - expected).max() > 1e-3


def test_a_channel_of_zeros_stays_zero_and_one_scale_can_serve_all():
    weight = torch.tensor([[100.0, -50.0], [0.0, 0.0], [0.3, 0.1]])
    assert round_weight(weight, INT8)[1].tolist() == [0.0, 0.0]
    torch.testing.assert_close(round_weight(weight, INT8)[2], weight[2], atol=0.3 / 127, rtol=0)
    assert round_weight(weight, INT8, per_channel=False)[2].tolist() == [0.0, 0.0]


def test_gradients_pass_as_if_there_were_no_rounding_except_outside_of_the_range():
    x = torch.linspace(-3, 5, 81, requires_grad=True)
    factor = torch.randn(81)
    (round_input(x, -1.0, 2.0, INPUT_LEVELS["asymmetric"]) * factor).sum().backward()
    clipped = x.detach().clone().requires_grad_()
    (clipped.clamp(-1.0, 2.0) * factor).sum().backward()
    away = ((x - 2).abs() > 0.02) & ((x + 1).abs() > 0.02)
    assert torch.equal(x.grad[away], clipped.grad[away])
    weight = torch.randn(4, 3, 2, 2, requires_grad=True)
    factors = torch.randn(4, 3, 2, 2)
    (round_weight(weight, INT8) * factors).sum().backward()
    assert torch.equal(weight.grad, factors)


def test_what_it_hooks_into_is_as_before_when_it_is_removed():
    module = classifier().module
    x = torch.from_numpy(images(1)[0])
    before = module(x)[0]
    rounded = FakeQuantized(module, INPUT_LEVELS["symmetric"])
    rounded.calibrate([x])
    assert not torch.equal(rounded(x)[0], before)
    rounded.remove()
    assert torch.equal(module(x)[0], before)


# Distances


def test_a_classifiers_distance_is_the_divergence():
    rng = np.random.default_rng(0)
    student, teacher = (rng.normal(0, 2, (6, 4)) for _ in range(2))
    p, q = (np.exp(a) / np.exp(a).sum(1, keepdims=True) for a in (teacher, student))
    expected = (p * np.log(p / q)).sum(1).mean()
    assert float(classifier_distance(torch.tensor(student), torch.tensor(teacher))) == pytest.approx(expected)


@pytest.mark.parametrize("reg_max", [1, 16])
def test_a_detectors_distance_is_zero_for_itself_and_counts_boxes_where_there_are_objects(reg_max):
    torch.manual_seed(0)
    box = torch.rand(2, 4 * reg_max, 3, 3) * 4
    logits = torch.full((2, 5, 3, 3), -20.0)
    logits[:, 1, 0, 0] = 20.0
    assert float(detector_distance([box, logits], [box, logits], reg_max)) == pytest.approx(0, abs=1e-6)
    elsewhere, there = box.clone(), box.clone()
    elsewhere[:, 0, 2, 2] += 1
    there[:, 0, 0, 0] += 1
    assert float(detector_distance([elsewhere, logits], [box, logits], reg_max)) == pytest.approx(0, abs=1e-6)
    assert float(detector_distance([there, logits], [box, logits], reg_max)) > 0.01
    nearly = logits + 1e-4 * torch.randn_like(logits)
    assert float(detector_distance([box, nearly], [box, logits], reg_max)) == pytest.approx(0, abs=1e-6)
    new_object = logits.clone()
    new_object[:, 2, 2, 2] = 2.0
    assert float(detector_distance([box, new_object], [box, logits], reg_max)) > 1


# The fine-tune


def test_it_mends_what_int8_breaks_and_what_it_gives_is_a_float_network():
    teacher, train, other = classifier(spread=30.0), images(64), images(64, seed=1)
    tuned = fine_tune(
        teacher, train, replace(SETTINGS, steps=150, batch=16, learning_rate=3e-3, largest_weight=7), silent
    )
    before, after = (error_in_int8(one, teacher, other, Levels(-7, 7)) for one in (teacher, tuned))
    assert after < 0.5 * before, (before, after)
    assert [(name, one.shape) for name, one in tuned.module.state_dict().items()] == [
        (name, one.shape) for name, one in teacher.module.state_dict().items()
    ]
    assert not any(one.requires_grad for one in tuned.module.parameters())
    assert not any(one._forward_pre_hooks for one in tuned.module.modules())


def test_the_int8_file_of_the_fine_tuned_network_says_more_of_what_the_float_one_says(tmp_path):
    teacher, train, other = classifier(spread=30.0), images(64), images(64, seed=1)
    tuned = fine_tune(
        teacher, train, replace(SETTINGS, steps=300, batch=16, learning_rate=3e-3, largest_weight=64), silent
    )
    before, after = (error_of_file(one, teacher, train, other, tmp_path) for one in (teacher, tuned))
    assert after < 0.5 * before, (before, after)


def test_a_network_that_int8_does_not_hurt_is_not_hurt_by_it():
    teacher, train, other = classifier(), images(64), images(64, seed=1)
    tuned = fine_tune(teacher, train, replace(SETTINGS, steps=60, batch=16, learning_rate=1e-4), silent)
    assert error_in_int8(tuned, teacher, other) < error_in_int8(teacher, teacher, other)


def test_where_it_does_not_help_the_weights_stay():
    teacher, lines = classifier(), []
    tuned = fine_tune(teacher, images(16), replace(SETTINGS, steps=3, learning_rate=3.0), lines.append)
    assert "stay as they were" in lines[-1]
    assert all(torch.equal(one, tensors_of(teacher)[name]) for name, one in tuned.module.state_dict().items())


def test_a_detector_is_fine_tuned_and_exported_like_the_one_it_came_from(network, tmp_path):
    given_tensors = tensors_of(network)
    train = images(8, 64)
    lines: list[str] = []
    tuned = fine_tune(
        network,
        train,
        replace(SETTINGS, steps=8, batch=4, learning_rate=3e-4, largest_weight=7),
        lines.append,
    )
    assert all(torch.equal(one, given_tensors[name]) for name, one in network.module.state_dict().items())
    before, after = (error_in_int8(one, network, train, Levels(-7, 7)) for one in (network, tuned))
    assert 0 < after < before
    assert "over all 8 images" in lines[-1]
    assert tuned.outputs == network.outputs
    for name, one in (("before", network), ("after", tuned)):
        export_onnx(one, 17, tmp_path / f"{name}.onnx")
    old, new = (onnx.load(str(tmp_path / f"{name}.onnx")).graph for name in ("before", "after"))
    assert [node.name for node in new.node] == [node.name for node in old.node]
    assert [one.name for one in new.output] == list(network.outputs.names)
    feed = {"images": train[0]}
    got = onnxruntime.InferenceSession(str(tmp_path / "after.onnx")).run(None, feed)
    with torch.no_grad():
        for one, expected in zip(got, tuned.module(torch.from_numpy(train[0])), strict=True):
            np.testing.assert_allclose(one, expected.numpy(), rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_a_batch_gives_a_detectors_outputs_image_by_image(network):
    train = images(8, 64)
    with torch.no_grad():
        together = network.module(torch.from_numpy(np.concatenate(train)))
        for row, tensor in enumerate(train):
            for one, all_of_them in zip(network.module(torch.from_numpy(tensor)), together, strict=True):
                torch.testing.assert_close(all_of_them[row : row + 1], one, rtol=1e-4, atol=1e-4)


def test_same_seed_same_bytes_and_another_seed_others(tmp_path):
    teacher, train = classifier(), images(20)
    runs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed + len(runs))  # torch's own random state has no say
        tuned = fine_tune(teacher, train, replace(SETTINGS, steps=5, seed=seed, largest_weight=7), silent)
        export_onnx(tuned, 17, tmp_path / "model.onnx")
        runs.append((tmp_path / "model.onnx").read_bytes())
    assert runs[0] == runs[1] != runs[2]


def test_fewer_images_than_a_batch_holds_are_seen_more_than_once():
    fine_tune(classifier(), images(3), replace(SETTINGS, steps=2), silent)


def test_every_image_is_seen_before_one_is_seen_again():
    tensors = [np.full((1, 3, 2, 2), value, np.float32) for value in range(6)]
    drawn = aware._Images(tensors, 4, torch.device("cpu")).shuffled(seed=3, steps=6)
    seen = torch.cat([batch[:, 0, 0, 0] for batch in drawn]).tolist()
    assert all(sorted(seen[first : first + 6]) == [0, 1, 2, 3, 4, 5] for first in range(0, 24, 6))


def test_no_images_and_a_loss_that_is_no_number_are_told(tmp_path):
    with pytest.raises(TrainingError, match="no images to fine-tune on"):
        fine_tune(classifier(), [], SETTINGS, silent)
    with pytest.raises(TrainingError, match=r"step \d+ of 40 .* lower its learning rate, now 1e\+37"):
        fine_tune(classifier(), images(8), replace(SETTINGS, learning_rate=1e37), silent)


def test_a_network_with_attention_is_fine_tuned(tmp_path: Path):
    from torchvision.models import VisionTransformer

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.network = VisionTransformer(24, 8, 1, 2, 16, 32, num_classes=3)
            torch.nn.init.normal_(self.network.heads.head.weight)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
            return (self.network(x),)

    given_network = Network(Logits().eval(), InputSpec("images", (24, 24)), Preprocessing(), ClassifierOutputs())
    tuned = fine_tune(
        given_network,
        images(8),
        replace(SETTINGS, steps=20, batch=4, activations="symmetric", largest_weight=1),
        silent,
    )
    export_onnx(tuned, 17, tmp_path / "model.onnx")
    assert not torch.equal(tuned.module.network.heads.head.weight, given_network.module.network.heads.head.weight)
