"""The trained classifier as it is shipped: from its file, through every backend; what it costs."""

import numpy as np
import pytest
import torch
from digit_photos import digit_photos, digit_tensors
from torchvision import models

from plumbline.backends import backend_module
from plumbline.classify.network import Logits, load_network
from plumbline.classify.training.architectures import deployed, make
from plumbline.classify.training.weights_file import ClassifierWeights, write_weights
from plumbline.errors import BackendError
from plumbline.networks import Network, count_gflops, count_parameters, export_onnx
from plumbline.quantization.recipes import Recipe
from plumbline.runtime.artifact import (
    Artifact,
    ClassifierDecode,
    ClassifierOutputs,
    InputSpec,
    Preprocessing,
    write_artifact,
)
from plumbline.runtime.session import load_artifact

SIDE = 32
CLASS_NAMES = tuple("0123456789")
PREPROCESSING = Preprocessing(resize="stretch", mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


def train_a_little(name, steps, learning_rate):
    torch.manual_seed(0)
    tensors, classes = digit_tensors(160, SIDE, PREPROCESSING)
    images, targets = torch.from_numpy(np.concatenate(tensors)), torch.from_numpy(classes)
    network = make(name, 10, SIDE)
    optimizer = torch.optim.AdamW(network.parameters(), learning_rate)
    for step in range(steps):
        rows = torch.arange(step * 32, step * 32 + 32) % len(images)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images[rows]), targets[rows]).backward()
        optimizer.step()
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.momentum = None
    with torch.no_grad():
        network(images)
    return network


@pytest.fixture(scope="module", params=["lenet", "resnet18", "mobilenet_v3_small", "repvgg_a0"])
def hub(request, tmp_path_factory):
    """A folder with best.pt and the hub's file, and the network."""
    folder = tmp_path_factory.mktemp(request.param)
    network = train_a_little(request.param, *((40, 3e-3) if request.param == "lenet" else (8, 1e-3)))
    write_weights(folder / "best.pt", ClassifierWeights(request.param, 10, SIDE, PREPROCESSING, network.state_dict()))
    loaded = load_network(folder / "best.pt")
    export_onnx(loaded, 17, folder / "model.onnx")
    return request.param, folder, loaded


def artifact_of(network, backend, precision):
    return Artifact(
        "a", "classify", backend, precision, CLASS_NAMES, network.input, network.preprocessing, network.outputs,
        ClassifierDecode(0.5), {}, {}, {}, {},
    )  # fmt: skip


def make_session(hub, out, backend, precision):
    _, folder, network = hub
    module = backend_module(backend)
    out.mkdir()
    if precision == "int8":
        tensors = digit_tensors(64, SIDE, PREPROCESSING)[0]
        quantizer = module.quantizer(folder / "model.onnx", tensors, out.parent, "")
        quantizer.write(out, Recipe(quantizer.methods[0], quantizer.operators[0]))
    else:
        module.export(folder / "model.onnx", out, precision, "")
    write_artifact(artifact_of(network, backend, precision), out)
    return load_artifact(out)


def test_what_it_says_of_itself(hub):
    _, _, network = hub
    assert network.input == InputSpec(name="images", size_wh=(SIDE, SIDE))
    assert network.preprocessing == PREPROCESSING
    assert network.outputs == ClassifierOutputs()
    assert not network.module.training
    (logits,) = network.module(torch.zeros(1, 3, SIDE, SIDE))
    assert logits.shape == (1, 10)
    assert not logits.requires_grad


@pytest.mark.parametrize(("backend", "precision"), [("onnx", "fp32"), ("openvino", "fp32"), ("ncnn", "fp32")])
def test_backends_give_the_weights_logits(hub, tmp_path, backend, precision):
    session = make_session(hub, tmp_path / "a", backend, precision)
    for tensor in digit_tensors(8, SIDE, PREPROCESSING, seed=1)[0]:
        expected = hub[2].module(torch.from_numpy(tensor))[0].numpy()
        (got,) = session.engine(tensor)
        assert got.shape == expected.shape == (1, 10)
        assert np.abs(got - expected).max() <= 5e-4 * np.abs(expected).max()


def test_int8_classifies_as_the_weights_do(hub, tmp_path):
    name, folder, network = hub
    session = make_session(hub, tmp_path / "int8", "onnx", "int8")
    tensors = digit_tensors(64, SIDE, PREPROCESSING, seed=1)[0]
    expected = np.concatenate([network.module(torch.from_numpy(tensor))[0].numpy() for tensor in tensors])
    got = np.concatenate([session.engine(tensor)[0] for tensor in tensors])
    assert got.shape == (64, 10)
    assert not np.array_equal(got, expected), "int8 differs from fp32, or it is not int8"
    size = (tmp_path / "int8" / "model.onnx").stat().st_size
    assert size < 0.5 * (folder / "model.onnx").stat().st_size
    if name == "lenet":
        # The others have seen too few images to be sure of anything; whoever trains one sees it in the report.
        assert (got.argmax(1) == expected.argmax(1)).mean() >= 0.95
        assert np.corrcoef(got.ravel(), expected.ravel())[0, 1] > 0.98


def test_an_artifact_classifies_an_image_from_its_pixels(hub, tmp_path):
    name, _, network = hub
    session = make_session(hub, tmp_path / "a", "onnx", "fp32")
    photos, classes = digit_photos(40)
    tensors, _ = digit_tensors(40, SIDE, PREPROCESSING)
    results = [session.predict(photo) for photo in photos]
    for result, tensor in zip(results, tensors, strict=True):
        expected = network.module(torch.from_numpy(tensor))[0].softmax(1).numpy()[0]
        np.testing.assert_allclose(result.probabilities, expected, atol=1e-4)
    if name == "lenet":
        assert np.mean([result.class_id for result in results] == classes) >= 0.9


def test_ncnn_says_what_it_has_no_layer_for(tmp_path):
    """Transformers with shifted windows: pnnx writes a file that kills the process which loads it."""
    swin = models.SwinTransformer([4, 4], 24, [2], [2], [4, 4], num_classes=10)
    module = Logits(deployed(swin)).eval().requires_grad_(False)
    network = Network(module, InputSpec("images", (32, 32)), Preprocessing(), ClassifierOutputs())
    export_onnx(network, 17, tmp_path / "model.onnx")
    (tmp_path / "ncnn").mkdir()
    with pytest.raises(BackendError, match=r"model\.onnx: NCNN has no layer for Tensor\.\w+, .*another backend"):
        backend_module("ncnn").export(tmp_path / "model.onnx", tmp_path / "ncnn", "fp32", "")


def test_a_foreign_file_is_refused(tmp_path):
    path = tmp_path / "best.pt"
    path.write_bytes(b"no weights at all")
    with pytest.raises(BackendError, match=r"best\.pt: not weights of a classifier"):
        load_network(path)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(BackendError, match=r"best\.pt: not weights of a classifier"):
        load_network(path)


def test_tensors_that_do_not_fit_the_architecture_are_refused(tmp_path):
    state = make("resnet18", 10, 32).state_dict()
    cases = {
        "a tensor is missing": ("resnet18", {key: value for key, value in state.items() if key != "fc.bias"}),
        "other classes": ("resnet18", {**state, "fc.bias": torch.zeros(3)}),
        "no such network": ("resnet19", state),
    }
    for name, content in cases.values():
        write_weights(tmp_path / "best.pt", ClassifierWeights(name, 10, 32, Preprocessing(), content))
        with pytest.raises(BackendError, match=rf"best\.pt: does not fit {name} as the installed libraries build it"):
            load_network(tmp_path / "best.pt")


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "shufflenet_v2_x0_5", "efficientnet_b0", "swin_t"])
def test_operations_and_parameters_are_those_that_torchvision_publishes(name):
    published = models.get_model_weights(name).DEFAULT.meta
    network = imagenet_network(name)
    assert count_parameters(network.module) == published["num_params"]
    # torchvision counts a multiply-add as one, in billions with three digits behind the point.
    assert count_gflops(network) == pytest.approx(2 * published["_ops"], abs=0.002)


def test_resnet18_by_hand():
    # 2 * (first convolution + 4 stages + dense layer), multiply-adds at 224 x 224
    stem, dense = 112 * 112 * 64 * 3 * 49, 512 * 1000
    stages = 4 * 56 * 56 * 64 * 64 * 9
    for width, side in ((128, 28), (256, 14), (512, 7)):
        stages += side * side * width * ((width // 2) * 9 + 3 * width * 9 + width // 2)
    assert count_gflops(imagenet_network("resnet18")) == pytest.approx(2 * (stem + stages + dense) / 1e9, rel=1e-9)


def test_attention_is_counted_and_exported_without_gradients(tmp_path):
    """Torch's fused attention counts as no operation and has no ONNX form; it runs where nothing needs a gradient."""

    class Attention(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = torch.nn.MultiheadAttention(48, 4, batch_first=True)

        def forward(self, x):
            x = x.flatten(2)[..., :48]
            return (self.attention(x, x, x, need_weights=False)[0],)

    module = Attention().eval().requires_grad_(False)
    network = Network(module, InputSpec("images", (8, 8)), Preprocessing(), ClassifierOutputs())
    tokens, width = 3, 48
    # Projections of queries, keys and values, and of the result; scores, and their sums of values.
    expected = 2 * (4 * tokens * width * width + 2 * tokens * tokens * width) / 1e9
    assert count_gflops(network) == pytest.approx(expected, rel=1e-9)
    assert torch.backends.mha.get_fastpath_enabled(), "as it was before"
    export_onnx(network, 17, tmp_path / "model.onnx")


def imagenet_network(name):
    module = Logits(deployed(make(name, 1000, 224))).eval()
    return Network(module, InputSpec("images", (224, 224)), Preprocessing(), ClassifierOutputs())
