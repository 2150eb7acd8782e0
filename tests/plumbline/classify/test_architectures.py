"""Architectures by name: they train, ship in their deployed form, and give the same logits as ONNX."""

from __future__ import annotations

import dataclasses
import shutil

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from class_images import training_settings, write_class_images
from digit_photos import digit_photos

from plumbline.classify.network import load_network
from plumbline.classify.training import train
from plumbline.classify.training.architectures import deployed, make, normalization
from plumbline.classify.training.grid_pool import GridPool
from plumbline.classify.training.weights_file import ClassifierWeights, read_weights, write_weights
from plumbline.errors import TrainingError
from plumbline.networks import count_parameters, export_onnx
from plumbline.runtime.artifact import Preprocessing
from plumbline.runtime.preprocess import preprocess, read_image

# Name -> side of the input: small, so that it fits CI. One or two of each family that README names.
ARCHITECTURES = {
    "lenet": 32,
    "alexnet": 64,
    "vgg11": 32,
    "googlenet": 32,
    "resnet18": 32,
    "resnext50_32x4d": 32,
    "mobilenet_v2": 32,
    "mobilenet_v3_small": 32,
    "shufflenet_v2_x0_5": 32,
    "efficientnet_b0": 32,
    "vit_b_16": 32,
    "swin_t": 32,
    "convnext_tiny": 32,
    "repvgg_a0": 32,
    "mobilevit_xs": 32,
    "yolo11n-cls": 32,
}
# Of the largest logit: ONNX Runtime adds up in another order than torch.
TOLERANCE = 1e-4
CLASS_NAMES = tuple("0123456789")


# These have tens of millions of parameters, whose files alone take minutes on a busy machine.
HEAVY = {"alexnet", "vgg11", "vit_b_16"}
EACH = [pytest.param(name, marks=pytest.mark.long if name in HEAVY else ()) for name in ARCHITECTURES]


@pytest.fixture
def folder(tmp_path):
    """A folder that is emptied at once: what is written of a VGG is 3 GB, and pytest keeps that of three runs."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """16 pictures of handwritten digits to train on and 4 to validate."""
    photos, classes = digit_photos(20)
    by_split = {"train": [0] * 16, "val": [0] * 4}
    dataset, splits = write_class_images(tmp_path_factory.mktemp("data"), by_split, CLASS_NAMES, size_wh=(40, 32))
    for path, photo in zip(dataset.images["path"], photos, strict=True):
        assert cv2.imwrite(str(dataset.image_path(path)), photo)
    names = [CLASS_NAMES[index] for index in classes]
    annotations = dataset.annotations.assign(class_id=classes, class_name=names)
    return dataclasses.replace(dataset, annotations=annotations), splits


def tensors_of(dataset, weights):
    images = [read_image(dataset.image_path(path)) for path in dataset.images["path"]]
    size_wh = (weights.image_size, weights.image_size)
    return [preprocess(image, size_wh, weights.preprocessing)[0] for image in images]


def enlivened(weights, tensors):
    """Return the trained network, and write it with batch statistics of its own data.

    Two batches leave the running averages near where they began, where some networks say the same of every image; and
    what says nothing agrees with anything.
    """
    content = read_weights(weights)
    network = make(content.architecture, content.num_classes, content.image_size)
    network.load_state_dict(content.state_dict)
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.momentum = None
    with torch.no_grad():
        network.train()(torch.from_numpy(np.concatenate(tensors)))
    write_weights(weights, dataclasses.replace(content, state_dict=network.state_dict()))
    return network.eval()


@pytest.mark.parametrize("name", EACH)
def test_an_epoch_of_training_then_onnx_with_the_same_logits(name, data, folder):
    dataset, splits = data
    side = ARCHITECTURES[name]
    settings = training_settings(model=name, image_size=side, epochs=1, optimizer="SGD", learning_rate=0.01)
    trained = train(dataset, splits, settings, work=folder / "work", tensorboard=folder / "events", say=print)
    assert len(trained.epochs) == 1
    shutil.rmtree(folder / "events")

    tensors = tensors_of(dataset, read_weights(trained.weights))
    in_training = enlivened(trained.weights, tensors)
    network = load_network(trained.weights)
    shutil.rmtree(folder / "work")
    with torch.inference_mode():
        before = np.concatenate([in_training(torch.from_numpy(tensor)).numpy() for tensor in tensors])
        shipped = np.concatenate([network.module(torch.from_numpy(tensor))[0].numpy() for tensor in tensors])
    del in_training
    scale = np.abs(shipped).max()
    assert shipped.std(axis=0).max() > 1e-3 * scale, "a dead network would agree with anything"
    assert np.abs(before - shipped).max() <= TOLERANCE * scale

    path = folder / "model.onnx"
    export_onnx(network, 17, path)
    del network
    assert shapes_of(onnx.load(path)) == ({"images": [1, 3, side, side]}, {"logits": [1, 10]})
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    exported = np.concatenate([session.run(["logits"], {"images": tensor})[0] for tensor in tensors])
    assert np.abs(exported - shipped).max() <= TOLERANCE * scale


def shapes_of(model):
    return tuple(
        {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values}
        for values in (model.graph.input, model.graph.output)
    )


def test_one_seed_gives_one_network():
    for name in ("lenet", "resnet18", "repvgg_a0", "mobilevit_xs", "yolo11n-cls"):
        states = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            states.append(make(name, 4, 32).state_dict())
        one, same, other = states
        assert all(torch.equal(one[key], same[key]) for key in one)
        assert any(not torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("side", [8, 9, 16, 28, 32, 64, 96, 200])
def test_lenet_runs_at_any_size_and_stays_small(side):
    network = make("lenet", 10, side)
    assert network(torch.zeros(2, 3, side, side)).shape == (2, 10)
    assert count_parameters(network) < 0.4e6


@pytest.mark.parametrize(("name", "side", "heads"), [("googlenet", 64, 3), ("inception_v3", 299, 2)])
def test_auxiliary_heads_are_there_in_training_alone(name, side, heads):
    network = make(name, 5, side)
    outputs = network(torch.rand(2, 3, side, side))
    assert isinstance(outputs, tuple)
    assert [tuple(output.shape) for output in outputs] == [(2, 5)] * heads
    shipped = deployed(network)
    assert count_parameters(shipped) < count_parameters(network)
    image = torch.rand(1, 3, side, side)
    with torch.inference_mode():
        torch.testing.assert_close(shipped(image), network.eval()(image))
    assert len(network.train()(torch.rand(2, 3, side, side))) == heads, "the trained one keeps its heads"


def test_inception_has_no_auxiliary_head_where_the_input_is_too_small_for_one():
    assert make("inception_v3", 5, 96)(torch.rand(2, 3, 96, 96)).shape == (2, 5)


@pytest.mark.parametrize("name", ["repvgg_a0", "mobileone_s0", "fastvit_t8", "repvit_m0_9", "yolo11n-cls"])
def test_merged_branches_give_the_same_logits_with_fewer_parameters(name):
    torch.manual_seed(0)
    network = make(name, 10, 64)
    photos, _ = digit_photos(12, size_wh=(64, 64))
    images = torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        for _ in range(8):
            network(images)
    shipped = deployed(network)
    assert network.training
    assert not any(module.training for module in shipped.modules())
    with torch.inference_mode():
        expected, got = network.eval()(images), shipped(images)
    assert (expected - got).abs().max() <= 1e-4 * expected.abs().max()
    assert count_parameters(shipped) < count_parameters(network)
    if name == "repvgg_a0":
        assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in shipped.modules())
        # Three branches of 22 blocks have become one convolution each.
        assert sum(isinstance(module, torch.nn.Conv2d) for module in shipped.modules()) == 22


@pytest.mark.parametrize("grid_hw", [(1, 1), (2, 3), (6, 6), (7, 7), (5, 1)])
@pytest.mark.parametrize("size_hw", [(1, 1), (2, 2), (3, 5), (7, 7), (14, 13), (12, 6)])
def test_the_grid_pool_is_torchs_adaptive_pooling(grid_hw, size_hw):
    x = torch.randn(2, 3, *size_hw)
    torch.testing.assert_close(GridPool(grid_hw)(x), torch.nn.AdaptiveAvgPool2d(grid_hw)(x), atol=1e-6, rtol=1e-5)


def test_a_name_that_does_not_exist_brings_the_nearest():
    with pytest.raises(TrainingError, match=r"unknown classifier 'resent18', .*did you mean 'resnet18'"):
        make("resent18", 10, 32)


@pytest.mark.parametrize(
    ("name", "side", "smallest"),
    [("alexnet", 32, 64), ("inception_v3", 64, 96), ("vit_b_16", 40, 32)],
)
def test_a_size_that_cannot_work_brings_one_that_does(name, side, smallest):
    with pytest.raises(TrainingError, match=rf"{name} cannot run on {side} pixels .* such as {smallest}, the smallest"):
        make(name, 10, side)


def test_normalization_is_what_the_librarys_weights_were_trained_on(tmp_path):
    imagenet = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    plain = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    half = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    for name, expected in {
        "resnet18": imagenet, "repvgg_a0": imagenet, "lenet": plain, "yolo11n-cls": plain, "mobilevit_s": plain,
        "inception_v3": half, "vit_base_patch16_224": half,
    }.items():  # fmt: skip
        assert normalization(name, "none") == normalization(name, "default") == expected
    own = Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    write_weights(tmp_path / "own.pt", ClassifierWeights("resnet18", 2, 32, own, {"a": torch.zeros(1)}))
    assert normalization("resnet18", str(tmp_path / "own.pt")) == (own.mean, own.std)
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    assert normalization("resnet18", str(tmp_path / "other.pth")) == imagenet


def test_torchvisions_own_normalisation_of_inception_is_the_same_input():
    """Its weights are for (x - 0.5) / 0.5; torchvision says ImageNet's and turns that back inside of the network."""
    x = torch.rand(2, 3, 96, 96)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    network = make("inception_v3", 3, 96).eval()
    with torch.inference_mode():
        ours = network((x - 0.5) / 0.5)
        network.transform_input = True
        torch.testing.assert_close(network((x - mean) / std), ours, rtol=1e-3, atol=1e-3 * float(ours.abs().max()))
