"""Weights to start from, as far as they fit."""

import pytest
import torch
from safetensors.torch import save_file
from torchvision import models

from plumbline.classify.training import pretrained_weights
from plumbline.classify.training.architectures import build, make
from plumbline.classify.training.pretrained_weights import take_over
from plumbline.classify.training.weights_file import ClassifierWeights, write_weights
from plumbline.errors import TrainingError
from plumbline.runtime.artifact import Preprocessing


def seeded(name, num_classes, seed=1, side=32):
    torch.manual_seed(seed)
    return make(name, num_classes, side).state_dict()


def build_from(path, name="resnet18", num_classes=10, side=32):
    lines = []
    torch.manual_seed(5)
    network = build(name, num_classes, side, str(path), lines.append)
    return network.state_dict(), lines


@pytest.mark.parametrize("kind", ["plain", "ours", "nested", "module.", "safetensors"])
def test_every_kind_of_file_is_taken_over_whole(tmp_path, kind):
    state = seeded("resnet18", 10)
    path = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pth")
    if kind == "ours":
        write_weights(path, ClassifierWeights("resnet18", 10, 32, Preprocessing(), state))
    elif kind == "safetensors":
        save_file(state, path)
    else:
        prefix = "module." if kind == "module." else ""
        plain = {prefix + key: value for key, value in state.items()}
        torch.save({"state_dict": plain, "epoch": 3} if kind == "nested" else plain, path)
    got, lines = build_from(path)
    assert all(torch.equal(got[key], state[key]) for key in state)
    assert lines == [f"train: train.classify.pretrained {path}: {len(state)} of {len(state)} tensors taken over"]


@pytest.mark.parametrize("name", ["lenet", "resnet18", "squeezenet1_1", "repvgg_a0", "yolo11n-cls"])
def test_a_head_of_another_number_of_classes_is_replaced_and_told(tmp_path, name):
    side = 64
    state = seeded(name, 1000, side=side)
    torch.save(state, tmp_path / "imagenet.pth")
    got, lines = build_from(tmp_path / "imagenet.pth", name, 10, side)
    torch.manual_seed(5)
    fresh = make(name, 10, side).state_dict()
    differing = [key for key in state if state[key].shape != got[key].shape]
    assert 1 <= len(differing) <= 2
    assert all(torch.equal(got[key], fresh[key] if key in differing else state[key]) for key in got)
    assert lines[0].endswith(
        f"head of 1000 classes replaced by one of 10; {len(got) - len(differing)} of {len(got)} tensors taken over"
    )


def test_auxiliary_heads_are_replaced_too(tmp_path):
    torch.save(seeded("googlenet", 1000), tmp_path / "g.pth")
    got, lines = build_from(tmp_path / "g.pth", "googlenet")
    assert f"head of 1000 classes replaced by one of 10; {len(got) - 6} of {len(got)}" in lines[0]


def test_weights_of_another_architecture_are_refused(tmp_path):
    torch.save(seeded("mobilenet_v2", 10), tmp_path / "m.pth")
    with pytest.raises(TrainingError, match=r"m\.pth: only 0 of the 122 tensors of resnet18 fit, expected its weights"):
        build_from(tmp_path / "m.pth")
    # A ResNet-50 has the stem of a ResNet-18 and more that is called and shaped alike.
    torch.save(seeded("resnet50", 10), tmp_path / "r50.pth")
    with pytest.raises(TrainingError, match=r"r50\.pth: only 98 of the 122 tensors of resnet18 fit"):
        build_from(tmp_path / "r50.pth")


def test_weights_that_are_not_used_are_told(tmp_path):
    torch.save(seeded("resnet34", 10), tmp_path / "r34.pth")
    _, lines = build_from(tmp_path / "r34.pth")
    assert lines[0].endswith("122 of 122 tensors taken over; 96 that are there have no place in resnet18")


def test_a_whole_model_is_unpickled_for_yolo_alone(tmp_path):
    torch.save(make("resnet18", 10, 32), tmp_path / "whole.pth")
    with pytest.raises(TrainingError, match=r"whole\.pth: not weights .* save its state_dict$"):
        build_from(tmp_path / "whole.pth")


@pytest.mark.parametrize("content", ["missing", "empty", "text", "cut", "no tensors", "a list"])
@pytest.mark.parametrize("name", ["resnet18", "yolo11n-cls"])
def test_files_that_are_no_weights_are_refused_in_one_line(tmp_path, name, content):
    path = tmp_path / "weights.pth"
    if content == "empty":
        path.write_bytes(b"")
    elif content == "text":
        path.write_text("version https://git-lfs.github.com/spec/v1\n")
    elif content == "cut":
        torch.save(seeded("lenet", 10), path)
        path.write_bytes(path.read_bytes()[:5000])
    elif content == "no tensors":
        torch.save({"epoch": 3}, path)
    elif content == "a list":
        torch.save([1, 2], path)
    with pytest.raises(TrainingError, match=r"^\S*weights\.pth: [^\n]*$"):
        build_from(path, name)


def test_a_checkpoint_of_ultralytics_is_taken_over(tmp_path):
    from plumbline.yolo import quiet_ultralytics

    quiet_ultralytics()
    from ultralytics.nn.tasks import ClassificationModel

    torch.manual_seed(3)
    model = ClassificationModel("yolo11n-cls.yaml", nc=7, verbose=False)
    torch.save({"model": model, "ema": None, "train_args": {"task": "classify"}}, tmp_path / "yolo.pt")
    got, lines = build_from(tmp_path / "yolo.pt", "yolo11n-cls", 7)
    state = model.state_dict()
    assert set(got) == set(state)
    assert all(torch.allclose(got[key].float(), state[key].float()) for key in state)
    assert lines[0].endswith(f"{len(state)} of {len(state)} tensors taken over")


def test_names_of_densenets_published_file(tmp_path):
    state = seeded("densenet121", 10)
    old = {key.replace("norm1", "norm.1").replace("conv2", "conv.2"): value for key, value in state.items()}
    assert set(old) != set(state)
    torch.save(old, tmp_path / "d.pth")
    got, _ = build_from(tmp_path / "d.pth", "densenet121")
    assert all(torch.equal(got[key], state[key]) for key in state)


@pytest.mark.parametrize("name", ["vit_b_32", "vit_tiny_patch16_224"])
def test_position_embeddings_are_interpolated_to_another_image_size(tmp_path, name):
    torch.save(seeded(name, 10, side=96), tmp_path / "v.pth")
    got, lines = build_from(tmp_path / "v.pth", name, 10, 64)
    assert lines[0].endswith(f"{len(got)} of {len(got)} tensors taken over")


def test_default_is_the_librarys_own_weights_with_the_head_replaced(monkeypatch):
    """What stands in for the download is the network that torchvision would fill with it."""
    published = seeded("resnet18", 1000)

    def get_model(name, weights, **_):
        assert weights is models.ResNet18_Weights.DEFAULT
        network = models.resnet18()
        network.load_state_dict(published)
        return network

    monkeypatch.setattr(pretrained_weights, "_torchvision_weights", pretrained_weights._torchvision_weights)
    original = models.get_model

    def either(name, weights, **more):
        return (get_model if weights else original)(name, weights=weights, **more)

    monkeypatch.setattr(
        models,
        "get_model",
        lambda name, weights, **more: (get_model if weights else original)(name, weights=weights, **more),
    )
    got, lines = build_from("default")
    assert torch.equal(got["conv1.weight"], published["conv1.weight"])
    assert got["fc.weight"].shape == (10, 512)
    assert "head of 1000 classes replaced by one of 10; 120 of 122 tensors taken over" in lines[0]


@pytest.mark.parametrize("name", ["resnet18", "repvgg_a0", "yolo11n-cls"])
def test_no_network_is_one_clear_line(monkeypatch, name):
    def refuse(*_):
        raise OSError("Network is unreachable\nsecond line")

    source = {"resnet18": "torchvision", "repvgg_a0": "timm", "yolo11n-cls": "yolo"}[name]
    monkeypatch.setitem(pretrained_weights._DEFAULTS, source, refuse)
    with pytest.raises(TrainingError, match=rf"^the weights of {name} cannot be had from {source} \(OSError: N[^\n]*$"):
        build_from("default", name)


def test_weights_that_nobody_publishes():
    with pytest.raises(TrainingError, match=r"lenet has no published weights, expected none or a path"):
        build_from("default", "lenet")


def test_the_state_that_was_given_is_not_changed():
    network, state = make("lenet", 10, 32), seeded("lenet", 3)
    kept = {key: value.clone() for key, value in state.items()}
    take_over(network, state, 10, "lenet", "x")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    assert all(torch.equal(state[key], kept[key]) for key in kept)


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    state = seeded("lenet", 10)
    broken = next(key for key, tensor in state.items() if tensor.ndim > 1)
    state[broken][0] = torch.nan
    torch.save(state, tmp_path / "broken.pth")
    with pytest.raises(TrainingError, match=rf"1 of its tensors hold NaN, {broken} the first, expected numbers; give"):
        build_from(tmp_path / "broken.pth", "lenet")


def test_weights_of_another_image_size_are_told_as_such(tmp_path):
    torch.save(seeded("lenet", 10, side=32), tmp_path / "small.pth")
    with pytest.raises(TrainingError, match=r"give weights of lenet \(of this image_size, where its layers depend"):
        build_from(tmp_path / "small.pth", "lenet", side=48)
