"""The linter for TensorRT: a file without fault, and every fault planted into it, one at a time."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from plumbline.quantization.tensorrt_lint import OPSETS, lint

SIZE = 8


def quantized_activation(name, source, scale=0.05):
    """Q and DQ of one tensor; the result is called `name`."""
    parameters = [f"{name}/scale", f"{name}/zero"]
    nodes = [
        helper.make_node("QuantizeLinear", [source, *parameters], [f"{name}/int8"], name=f"{name}/Q"),
        helper.make_node("DequantizeLinear", [f"{name}/int8", *parameters], [name], name=f"{name}/DQ"),
    ]
    return nodes, {parameters[0]: np.array(scale, np.float32), parameters[1]: np.array(0, np.int8)}


def quantized_weights(name, shape, axis):
    """int8 weights and their DQ; the result is called `name`."""
    values = np.random.default_rng(0).integers(-127, 128, shape).astype(np.int8)
    parameters = [f"{name}/scale", f"{name}/zero"]
    node = helper.make_node("DequantizeLinear", [f"{name}/int8", *parameters], [name], name=f"{name}/DQ", axis=axis)
    channels = shape[axis]
    scale, zero = np.linspace(0.001, 0.002, channels, dtype=np.float32), np.zeros(channels, np.int8)
    return [node], {f"{name}/int8": values, parameters[0]: scale, parameters[1]: zero}


def good_model():
    """Conv, Relu, ConvTranspose, and a residual connection around both, as TensorRT wants them."""
    parts = [
        quantized_activation("x", "image"),
        quantized_weights("w", (3, 3, 1, 1), axis=0),
        ([helper.make_node("Conv", ["x", "w", "bias"], ["conv"], name="conv")], {"bias": np.ones(3, np.float32)}),
        ([helper.make_node("Relu", ["conv"], ["relu"], name="relu")], {}),
        quantized_activation("y", "relu"),
        quantized_weights("v", (3, 5, 1, 1), axis=1),
        ([helper.make_node("ConvTranspose", ["y", "v"], ["up"], name="up")], {}),
        quantized_activation("z", "up"),
        quantized_weights("u", (3, 5, 1, 1), axis=0),
        ([helper.make_node("Conv", ["z", "u"], ["down"], name="down")], {}),
        quantized_activation("d", "down"),
        ([helper.make_node("Add", ["x", "d"], ["out"], name="add")], {}),
    ]
    nodes = [node for part, _ in parts for node in part]
    arrays = {name: array for _, constants in parts for name, array in constants.items()}
    shape = [1, 3, SIZE, SIZE]
    graph = helper.make_graph(
        nodes,
        "good",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def node_of(model, name):
    return next(node for node in model.graph.node if node.name == name)


def set_array(model, name, array):
    for tensor in model.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(array, name))
            return
    model.graph.initializer.append(numpy_helper.from_array(array, name))


def set_axis(model, name, axis):
    node = node_of(model, name)
    del node.attribute[:]
    node.attribute.append(helper.make_attribute("axis", axis))


def insert_before(model, name, *nodes):
    old = list(model.graph.node)
    place = next(index for index, node in enumerate(old) if node.name == name)
    del model.graph.node[:]
    model.graph.node.extend([*old[:place], *nodes, *old[place:]])


def add_pair(model, name, source, before, **kept):
    nodes, arrays = quantized_activation(name, source, **kept)
    insert_before(model, before, *nodes)
    for key, array in arrays.items():
        set_array(model, key, array)


def told(model):
    return [(finding.rule, finding.node, finding.fault) for finding in lint(model)]


def test_a_good_file_has_no_finding_and_runs():
    import onnxruntime

    model = good_model()
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    out = session.run(None, {"image": np.ones((1, 3, SIZE, SIZE), np.float32)})[0]
    assert np.abs(out).max() > 0
    assert lint(model) == []


def old_opset(model):
    model.opset_import[0].version = 12
    return "opset", "good"


def new_opset(model):
    model.opset_import[0].version = OPSETS[-1] + 1
    return "opset", "good"


def open_batch(model):
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    return "shape", "image"


def shifted_zero_point(model):
    set_array(model, "y/zero", np.array(-3, np.int8))
    return ("zero_point", "y/Q"), ("zero_point", "y/DQ")


def unsigned(model):
    set_array(model, "y/zero", np.array(0, np.uint8))
    return ("zero_point", "y/Q"), ("zero_point", "y/DQ")


def no_zero_point(model):
    for name in ("y/Q", "y/DQ"):
        del node_of(model, name).input[2]
    return ("zero_point", "y/Q"), ("zero_point", "y/DQ")


def too_few_zero_points(model):
    set_array(model, "w/zero", np.zeros(1, np.int8))
    return "zero_point", "w/DQ"


def computed_zero_point(model):
    insert_before(model, "y/Q", helper.make_node("Identity", ["y/zero"], ["zero"], name="identity"))
    for name in ("y/Q", "y/DQ"):
        node_of(model, name).input[2] = "zero"
    return ("zero_point", "y/Q"), ("zero_point", "y/DQ")


def computed_scale(model):
    insert_before(model, "y/Q", helper.make_node("ReduceMax", ["relu"], ["max"], name="max", keepdims=0))
    for name in ("y/Q", "y/DQ"):
        node_of(model, name).input[1] = "max"
    return ("scale", "y/Q"), ("scale", "y/DQ")


def scale_of(value):
    def plant(model):
        set_array(model, "w/scale", np.array([0.1, value, 0.1], np.float32))
        return "scale", "w/DQ"

    plant.__name__ = f"scale_of_{value}"
    return plant


def activation_per_channel(model):
    set_array(model, "y/scale", np.full(3, 0.05, np.float32))
    set_array(model, "y/zero", np.zeros(3, np.int8))
    return ("granularity", "y/Q"), ("granularity", "y/DQ")


def scales_on_input_channels(model):
    set_axis(model, "w/DQ", 1)
    return "axis", "w/DQ"


def scales_on_the_wrong_axis_of_transposed_weights(model):
    set_axis(model, "v/DQ", 0)
    set_array(model, "v/scale", np.full(3, 0.001, np.float32))
    set_array(model, "v/zero", np.zeros(3, np.int8))
    return "axis", "v/DQ"


def too_many_scales(model):
    set_array(model, "w/scale", np.full(4, 0.001, np.float32))
    set_array(model, "w/zero", np.zeros(4, np.int8))
    return "axis", "w/DQ"


def pair_with_two_scales(model):
    set_array(model, "other", np.array(0.06, np.float32))
    node_of(model, "y/DQ").input[1] = "other"
    return "pair", "y/Q"


def quantize_alone(model):
    model.graph.node.append(
        helper.make_node("QuantizeLinear", ["relu", "y/scale", "y/zero"], ["alone"], name="alone/Q")
    )
    return "pair", "alone/Q"


def int8_to_a_stranger(model):
    node_of(model, "y/DQ").input[0] = "pooled"
    pool = helper.make_node("MaxPool", ["y/int8"], ["pooled"], name="pool", kernel_shape=[1, 1])
    insert_before(model, "y/DQ", pool)
    return ("pair", "y/Q"), ("pair", "y/DQ")


def int8_output(model):
    model.graph.output.append(helper.make_tensor_value_info("y/int8", TensorProto.INT8, [1, 3, SIZE, SIZE]))
    return "pair", "y/Q"


def unsigned_weights(model):
    set_array(model, "w/int8", np.zeros((3, 3, 1, 1), np.uint8))
    return "pair", "w/DQ"


def int32_bias(model):
    for name, array in (("b/int32", np.ones(3)), ("b/zero", np.zeros(3))):
        set_array(model, name, array.astype(np.int32))
    set_array(model, "b/scale", np.full(3, 0.001, np.float32))
    inputs = ["b/int32", "b/scale", "b/zero"]
    insert_before(model, "conv", helper.make_node("DequantizeLinear", inputs, ["b"], name="b/DQ", axis=0))
    node_of(model, "conv").input[2] = "b"
    return "bias", "b/DQ"


def quantized_weights_alone(model):
    node_of(model, "up").input[0] = "relu"
    for name in ("y/Q", "y/DQ"):
        model.graph.node.remove(node_of(model, name))
    return "weights", "up"


def quantized_twice(model):
    add_pair(model, "y2", "y", before="up")
    node_of(model, "up").input[0] = "y2"
    return "double", "y2/Q"


def integer_convolution(model):
    node_of(model, "down").op_type = "QLinearConv"
    return "operator", "down"


def foreign_domain(model):
    for name in ("y/Q", "y/DQ"):
        node_of(model, name).domain = "com.microsoft"
    return ("operator", "y/Q"), ("operator", "y/DQ")


FAULTS = [
    old_opset,
    new_opset,
    open_batch,
    shifted_zero_point,
    unsigned,
    no_zero_point,
    too_few_zero_points,
    computed_zero_point,
    computed_scale,
    scale_of(0.0),
    scale_of(-0.1),
    scale_of(np.nan),
    scale_of(np.inf),
    activation_per_channel,
    scales_on_input_channels,
    scales_on_the_wrong_axis_of_transposed_weights,
    too_many_scales,
    pair_with_two_scales,
    quantize_alone,
    int8_to_a_stranger,
    int8_output,
    unsigned_weights,
    int32_bias,
    quantized_weights_alone,
    quantized_twice,
    integer_convolution,
    foreign_domain,
]


@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_found_where_it_is_and_nothing_else_is(plant):
    model = good_model()
    planted = plant(model)
    expected = [planted] if isinstance(planted[0], str) else list(planted)
    assert told(model) == [(rule, node, True) for rule, node in expected]
    assert all(str(finding).startswith(f"node {finding.node}: ") for finding in lint(model))


def one_scale_for_all_weights(model):
    set_array(model, "w/scale", np.array(0.001, np.float32))
    set_array(model, "w/zero", np.array(0, np.int8))
    return "granularity", "w/DQ"


def float_weights(model):
    set_array(model, "w", np.ones((3, 3, 1, 1), np.float32))
    model.graph.node.remove(node_of(model, "w/DQ"))
    return "weights", "conv"


def half_a_residual(model):
    node_of(model, "add").input[1] = "down"
    for name in ("d/Q", "d/DQ"):
        model.graph.node.remove(node_of(model, name))
    return "residual", "add"


def before_the_activation(model):
    add_pair(model, "c", "conv", before="relu")
    node_of(model, "relu").input[0] = "c"
    return "activation", "c/Q"


def quantized_output(model):
    add_pair(model, "last", "out", before="add")
    node_of(model, "add").output[0] = "sum"
    node_of(model, "last/Q").input[0] = "sum"
    node_of(model, "last/DQ").output[0] = "out"
    return "output", "last/DQ"


ADVICE = [one_scale_for_all_weights, float_weights, half_a_residual, before_the_activation, quantized_output]


@pytest.mark.parametrize("plant", ADVICE, ids=lambda plant: plant.__name__)
def test_what_only_costs_speed_or_accuracy_is_advice(plant):
    model = good_model()
    expected = plant(model)
    assert told(model) == [(*expected, False)]


def test_weights_that_are_quantized_in_the_file_are_weights_too():
    """A Q before the DQ of float weights, as quantization-aware training exports them."""
    model = good_model()
    set_array(model, "w/float", np.ones((3, 3, 1, 1), np.float32))
    inputs = ["w/float", "w/scale", "w/zero"]
    insert_before(model, "w/DQ", helper.make_node("QuantizeLinear", inputs, ["w/q"], name="w/Q", axis=0))
    node_of(model, "w/DQ").input[0] = "w/q"
    assert told(model) == []
    set_axis(model, "w/DQ", 1)
    assert told(model) == [("pair", "w/Q", True), ("axis", "w/DQ", True)]


@pytest.mark.parametrize(("transposed", "axis"), [(0, 1), (1, 0)])
def test_a_dense_layer_has_its_channels_where_its_weights_are_transposed_to(transposed, axis):
    nodes, arrays = quantized_activation("x", "image")
    for wrong in (False, True):
        weights, constants = quantized_weights("w", (4, 4), axis=1 - axis if wrong else axis)
        gemm = helper.make_node("Gemm", ["x", "w"], ["out"], name="gemm", transB=transposed)
        graph = helper.make_graph(
            [*nodes, *weights, gemm],
            "dense",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 4])],
            [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 4])],
            [numpy_helper.from_array(array, name) for name, array in {**arrays, **constants}.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        assert told(model) == ([("axis", "w/DQ", True)] if wrong else [])


def test_a_node_without_a_name_is_told_by_what_it_makes():
    model = good_model()
    set_array(model, "y/scale", np.array(0.0, np.float32))
    node_of(model, "y/Q").name = ""
    assert str(lint(model)[0]).startswith("node QuantizeLinear -> y/int8: a scale of 0.0, expected scales above 0")
