"""Weights to start from: the library's own, or a file's, as far as they fit the network."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from plumbline.architecture_names import classifier_sources
from plumbline.errors import TrainingError

NONE, DEFAULT = "none", "default"
StateDict = dict[str, torch.Tensor]

# Where more than this share of a network's tensors has another shape in the weights, they are another architecture's:
# 98 of the 122 tensors of a ResNet-18 fit a ResNet-50, the others do not. Some Swin's tables depend on the image size.
MOST_CONFLICTS = 0.1
# Where less than this share is in the weights at all, they are another architecture's too.
LEAST_SHARE = 0.5
# torchvision renamed the layers of DenseNet; its published files have the old names: denselayer1.norm.1.weight
_OLD_DENSENET = re.compile(r"(?<=\.)(norm|conv)\.([12])(?=\.)")


def load_pretrained(  # noqa: PLR0917
    module: torch.nn.Module,
    name: str,
    num_classes: int,
    image_size: int,
    pretrained: str,
    say: Callable[[str], None],
) -> None:
    """Replace the random weights of a network, and tell how many; `none` leaves them.

    A head of another number of classes stays random, and so does what the weights do not have.

    Args:
        module: What `plumbline.classify.training.architectures` built by this name.
        name: Of the architecture.
        num_classes: That it was built for.
        image_size: Side of the input that it was built for.
        pretrained: ``none``, ``default``, or a path.
        say: Gets one line.

    Raises:
        TrainingError: They cannot be had or read, or are another architecture's.
    """
    if pretrained == NONE:
        return
    # A pickle can run anything: only where it is the usual form of weights, which ultralytics' whole models are.
    state = (
        _library_weights(name)
        if pretrained == DEFAULT
        else read_state_dict(Path(pretrained), whole_models=classifier_sources()[name] == "yolo")
    )
    source = f"train.classify.pretrained {pretrained}"
    state = _resized(module, state, image_size)
    say(f"train: {source}: {take_over(module, state, num_classes, name, source)}")


def take_over(
    module: torch.nn.Module, state: Mapping[str, torch.Tensor], num_classes: int, name: str, source: str
) -> str:
    """Copy the tensors that fit, and return what happened as a sentence.

    Raises:
        TrainingError: They are another architecture's, see `MOST_CONFLICTS` and `LEAST_SHARE`; or one is NaN.
    """
    own = module.state_dict()
    shared = {key: state[key] for key in own if key in state}
    taken = {key: tensor for key, tensor in shared.items() if tensor.shape == own[key].shape}
    heads = {key: len(shared[key]) for key in shared if _is_head(own[key], shared[key], num_classes)}
    conflicts = len(shared) - len(taken) - len(heads)
    if len(taken) < LEAST_SHARE * len(own) or conflicts > MOST_CONFLICTS * len(own):
        raise TrainingError(
            f"{source}: only {len(taken)} of the {len(own)} tensors of {name} fit, expected its weights; give weights"
            f" of {name} (of this image_size, where its layers depend on it), or change train.classify.model"
        )
    broken = [key for key, tensor in taken.items() if tensor.isnan().any()]
    if broken:
        raise TrainingError(
            f"{source}: {len(broken)} of its tensors hold NaN, {broken[0]} the first, expected numbers; give weights of"
            " a training that ended well"
        )
    module.load_state_dict({**own, **taken})
    parts = [f"{len(taken)} of {len(own)} tensors taken over"]
    if heads:
        parts.insert(0, f"head of {min(heads.values())} classes replaced by one of {num_classes}")
    unused = len(set(state) - set(own))
    if unused:
        parts.append(f"{unused} that are there have no place in {name}")
    return "; ".join(parts)


def read_state_dict(path: Path, *, whole_models: bool = False) -> StateDict:
    """Read a file of weights: ours, torchvision's or timm's (.pth, .safetensors).

    Args:
        path: The file.
        whole_models: Also read ultralytics' checkpoints (.pt), which are pickled models and no plain tensors.

    Raises:
        TrainingError: It is missing, unreadable, or holds no tensors.
    """
    from timm.models import load_state_dict

    if not path.is_file():
        raise TrainingError(
            f"{path}: no such file, expected none, default or a path to weights; change train.classify.pretrained in"
            " params.yaml"
        )
    try:
        state = load_state_dict(str(path))
    except Exception as error:  # safetensors has errors of its own, and a cut file raises almost anything
        if not whole_models:
            raise TrainingError(
                f"{path}: not weights that torch can read ({type(error).__name__}), expected tensors in a .pt, .pth or"
                " .safetensors file; give another file, or save its state_dict"
            ) from error
        from plumbline.yolo.classifiers import read_checkpoint

        state = read_checkpoint(path)
    tensors = {_OLD_DENSENET.sub(r"\1\2", str(key)): value for key, value in state.items() if torch.is_tensor(value)}
    if not tensors:
        raise TrainingError(f"{path}: holds no tensors, expected a state_dict; give another file")
    return tensors


def _library_weights(name: str) -> StateDict:
    source = classifier_sources()[name]
    if source not in _DEFAULTS:
        raise TrainingError(
            f"{name} has no published weights, expected none or a path; change train.classify.pretrained in params.yaml"
        )
    try:
        return _DEFAULTS[source](name)
    except TrainingError:
        raise
    except Exception as error:  # each library's way to the network has its own tree of errors
        raise TrainingError(
            f"the weights of {name} cannot be had from {source} ({_one_line(error)}); check the network, or download"
            " them elsewhere and give their path as train.classify.pretrained"
        ) from error


def _torchvision_weights(name: str) -> StateDict:
    from torchvision import models

    # The whole network and not the file: torchvision renames what is in some files.
    auxiliary = {"aux_logits": True} if name in {"googlenet", "inception_v3"} else {}
    network = models.get_model(name, weights=models.get_model_weights(name).DEFAULT, progress=False, **auxiliary)
    return dict(network.state_dict())


def _timm_weights(name: str) -> StateDict:
    import timm

    if not timm.is_model_pretrained(name):
        raise TrainingError(
            f"timm publishes no weights of {name}, expected none or a path; change train.classify.pretrained in"
            " params.yaml"
        )
    return dict(timm.create_model(name, pretrained=True).state_dict())


def _yolo_weights(name: str) -> StateDict:
    from plumbline.yolo.classifiers import download_checkpoint

    return download_checkpoint(name)


_DEFAULTS: dict[str, Callable[[str], StateDict]] = {
    "torchvision": _torchvision_weights,
    "timm": _timm_weights,
    "yolo": _yolo_weights,
}


def _resized(module: torch.nn.Module, state: StateDict, image_size: int) -> StateDict:
    """Interpolate the position embeddings of a torchvision or timm ViT to the grid of another image size."""
    from timm.layers import resample_abs_pos_embed
    from torchvision.models import VisionTransformer
    from torchvision.models.vision_transformer import interpolate_embeddings

    if isinstance(module, VisionTransformer) and "encoder.pos_embedding" in state:
        return dict(interpolate_embeddings(image_size, module.patch_size, dict(state)))
    own, theirs = getattr(module, "pos_embed", None), state.get("pos_embed")
    grid = getattr(getattr(module, "patch_embed", None), "grid_size", None)
    if own is None or theirs is None or grid is None or own.shape == theirs.shape or theirs.ndim != 3:
        return state
    tokens = getattr(module, "num_prefix_tokens", 0)
    with_tokens = own.shape[1] != grid[0] * grid[1]
    resized = resample_abs_pos_embed(theirs, list(grid), num_prefix_tokens=tokens if with_tokens else 0)
    return {**state, "pos_embed": resized}


def _is_head(own: torch.Tensor, theirs: torch.Tensor, num_classes: int) -> bool:
    """Tell whether two tensors differ as a head's do for two numbers of classes: in their first dimension alone."""
    return (
        own.ndim > 0
        and len(own) == num_classes
        and own.ndim == theirs.ndim
        and own.shape != theirs.shape
        and own.shape[1:] == theirs.shape[1:]
    )


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0][:160]
