"""Classifier networks by name, and the form in which they ship.

In training a network gives logits of shape (N, C), or a tuple of them and of each auxiliary head's logits (GoogLeNet,
Inception v3); in inference it gives logits.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from plumbline.architecture_names import LENET, classifier_sources, nearest
from plumbline.classify.training.grid_pool import replace_grid_pools
from plumbline.classify.training.pretrained_weights import DEFAULT, NONE, load_pretrained
from plumbline.errors import BackendError, TrainingError

# The auxiliary head of Inception v3 has a 5x5 convolution behind a 5x5 pooling: it needs 17 cells a side, which the
# network has for inputs of so many pixels.
INCEPTION_AUXILIARY_SIZE = 299
# What a network raises where its input is too small, or no multiple of something.
_REFUSALS = (RuntimeError, ValueError, AssertionError, IndexError, TypeError, ZeroDivisionError)
_LARGEST_SIZE = 512

Triple = tuple[float, float, float]
IDENTITY: tuple[Triple, Triple] = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def build(name: str, num_classes: int, image_size: int, pretrained: str, say: Callable[[str], None]) -> torch.nn.Module:
    """Build a network for training.

    Args:
        name: One of `architecture_names.known_classifiers`.
        num_classes: Length of its output.
        image_size: Side of its square input, pixels.
        pretrained: ``none`` (random weights, from torch's random state), ``default`` (the library's, downloaded), or a
            path.
        say: Is told what came of the pretrained weights.

    Raises:
        TrainingError: There is no such network, it cannot run at that size, or the weights cannot be used.
    """
    module = make(name, num_classes, image_size)
    load_pretrained(module, name, num_classes, image_size, pretrained, say)
    return module


def make(name: str, num_classes: int, image_size: int) -> torch.nn.Module:
    """Build a network with random weights, in training mode, and see it run once; arguments as of `build`.

    Raises:
        TrainingError: There is no such network, or it cannot run at that size.
    """
    if name not in classifier_sources():
        near = nearest(name)
        hint = f"did you mean {' or '.join(repr(one) for one in near)}?" if near else "see README"
        raise TrainingError(
            f"train.classify.model: unknown classifier {name!r}, expected lenet, or one of ultralytics' (yolo11n-cls),"
            f" torchvision's or timm's; {hint}"
        )
    try:
        return _seen_running(name, num_classes, image_size)
    except _REFUSALS as error:
        smallest = _smallest_size(name, num_classes)
        said = f"{type(error).__name__}: {error}".splitlines()[0][:120]
        raise TrainingError(
            f"train.classify.image_size: {name} cannot run on {image_size} pixels ({said}), expected"
            + (f" such as {smallest}, the smallest multiple of 32 that it can" if smallest else " another architecture")
            + "; change it in params.yaml"
        ) from error


def deployed(module: torch.nn.Module) -> torch.nn.Module:
    """Return a copy in the form that ships, which gives the same logits.

    It is set to inference, has no auxiliary heads, and where its library offers it, branches and batch normalisations
    are merged into convolutions (timm's RepVGG, MobileOne, FastViT, RepViT...; YOLO).
    """
    from torchvision.models import GoogLeNet, Inception3

    from plumbline.yolo.classifiers import YoloClassifier

    if isinstance(module, YoloClassifier):
        return module.fused()
    shipped: Any = copy.deepcopy(module).eval()
    if isinstance(shipped, GoogLeNet):
        shipped.aux1 = shipped.aux2 = None
        shipped.aux_logits = False
    elif isinstance(shipped, Inception3):
        shipped.AuxLogits = None
        shipped.aux_logits = False
    elif type(module).__module__.startswith("timm."):
        from timm.utils.model import reparameterize_model

        # Its new convolutions are in training mode, as every new module is.
        shipped = reparameterize_model(shipped, inplace=True).eval()
    replace_grid_pools(shipped)
    return shipped


def normalization(name: str, pretrained: str) -> tuple[Triple, Triple]:
    """Return mean and std, per channel of RGB in 0..1, of the input that a network is trained on.

    It is what the library's weights were trained on, with `none` too, so that `pretrained` changes nothing else. A file
    of our own says it itself.
    """
    if pretrained not in {NONE, DEFAULT}:
        from plumbline.classify.training.weights_file import read_weights

        try:
            preprocessing = read_weights(Path(pretrained)).preprocessing
        except BackendError:
            pass  # another library's file, or one that `build` will refuse
        else:
            return preprocessing.mean, preprocessing.std
    source = classifier_sources().get(name)
    if source == "timm":
        import timm

        cfg = timm.get_pretrained_cfg(name)
        return _triple(cfg.mean), _triple(cfg.std)
    if source == "torchvision":
        from torchvision import models

        if name in {"googlenet", "inception_v3"}:
            # Their weights come from TensorFlow; torchvision's transforms say otherwise, and the network undoes it.
            return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
        transforms = models.get_model_weights(name).DEFAULT.transforms()
        return _triple(transforms.mean), _triple(transforms.std)
    return IDENTITY


def _triple(values: Any) -> Triple:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _seen_running(name: str, num_classes: int, image_size: int) -> torch.nn.Module:
    with warnings.catch_warnings():
        # Each library announces what will change in it one day.
        warnings.simplefilter("ignore")
        module = _MAKERS[classifier_sources()[name]](name, num_classes, image_size)
        module.eval()
        with torch.no_grad():
            logits = module(torch.zeros(1, 3, image_size, image_size))
    if not torch.is_tensor(logits) or logits.shape != (1, num_classes):
        got = tuple(logits.shape) if torch.is_tensor(logits) else type(logits).__name__
        raise ValueError(f"expected outputs of shape (1, {num_classes}), got {got}")
    return module.train()


def _smallest_size(name: str, num_classes: int) -> int | None:
    for size in range(32, _LARGEST_SIZE + 1, 32):
        try:
            _seen_running(name, num_classes, size)
        except _REFUSALS:
            continue
        return size
    return None


def _make_lenet(_name: str, num_classes: int, image_size: int) -> torch.nn.Module:
    from plumbline.classify.training.lenet import LeNet

    return LeNet(num_classes, image_size)


def _make_yolo(name: str, num_classes: int, _image_size: int) -> torch.nn.Module:
    from plumbline.yolo.classifiers import YoloClassifier

    return YoloClassifier(name, num_classes)


def _make_torchvision(name: str, num_classes: int, image_size: int) -> torch.nn.Module:
    from torchvision import models

    special: dict[str, Any] = {}
    if name.startswith("vit_"):
        special = {"image_size": image_size}
    elif name == "maxvit_t":
        special = {"input_size": (image_size, image_size)}
    elif name == "googlenet":
        special = {"aux_logits": True, "init_weights": True}
    elif name == "inception_v3":
        special = {"aux_logits": image_size >= INCEPTION_AUXILIARY_SIZE, "init_weights": True}
    return models.get_model(name, weights=None, num_classes=num_classes, **special)


def _make_timm(name: str, num_classes: int, image_size: int) -> torch.nn.Module:
    import timm

    logging.getLogger("timm").setLevel(logging.ERROR)
    state = torch.get_rng_state()
    try:
        return timm.create_model(name, num_classes=num_classes, img_size=image_size)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
    # A convolutional network takes any size. The same random numbers, whatever the attempt has drawn.
    torch.set_rng_state(state)
    return timm.create_model(name, num_classes=num_classes)


_MAKERS: dict[str, Callable[[str, int, int], torch.nn.Module]] = {
    LENET: _make_lenet,
    "yolo": _make_yolo,
    "torchvision": _make_torchvision,
    "timm": _make_timm,
}
