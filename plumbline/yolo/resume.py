"""The whole state of a training between two epochs, so that going on after a kill gives what one run in one go gives.

ultralytics' own ``last.pt`` is not enough: it holds the averaged weights in fp16 alone, not those that are trained, and
no random state. Here is everything that the next epoch depends on, in one file that is replaced in one step: a kill
while it is written leaves the epoch before.

On the CPU the images are loaded by this process, so that its random states are all there are: a resumed run is the same
bit for bit. With worker processes (on GPUs) no state can be read between two epochs, so each epoch's order of images
and augmentation follow from the seed and the epoch alone (`reseed`): resumed or not, the same images are seen, in the
same order and with the same augmentation. What remains is what a GPU itself does not repeat from run to run.
"""

from __future__ import annotations

import hashlib
import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plumbline.files import replacing
from plumbline.torch_files import DamagedFileError, read_torch_file

STATE = "state.pt"


def save_state(trainer: Any, path: Path, rows: list[dict[str, float]], best: bytes) -> None:
    """Write what the next epoch depends on.

    Args:
        trainer: ultralytics' trainer at the end of an epoch, after it has decided whether to stop.
        path: Replaced in one step.
        rows: Results of every epoch so far.
        best: The best epoch's checkpoint. Here and in no file of its own: both must be of the same epoch.
    """
    # Gradients are no state: `nbs` is `batch`, so that no epoch ends with any that no step has used.
    assert trainer.accumulate == 1
    loader = trainer.train_loader
    state = {
        "epoch": trainer.epoch,
        "finished": bool(trainer.stop),
        "rows": rows,
        "best": best,
        "model": _plain(trainer.model).state_dict(),
        "ema": trainer.ema.ema.state_dict(),
        "updates": trainer.ema.updates,
        "optimizer": trainer.optimizer.state_dict(),
        "scaler": trainer.scaler.state_dict(),
        "stopper": dict(trainer.stopper.__dict__),
        "best_fitness": trainer.best_fitness,
        "random": random_states(),
        "sampler": loader.sampler.generator.get_state() if getattr(loader.sampler, "generator", None) else None,
        "buffer": list(loader.dataset.buffer),
    }
    with replacing(path) as temporary:
        torch.save(state, temporary)


def read_state(path: Path) -> dict[str, Any] | None:
    """Read a state; None where there is none, or one that a failing disk has damaged: then training starts again."""
    try:
        state: dict[str, Any] = read_torch_file(path, weights_only=False)
    except (FileNotFoundError, DamagedFileError):
        return None
    return state if isinstance(state, dict) and "rows" in state else None


def restore_state(trainer: Any, state: dict[str, Any]) -> None:
    """Put a trainer that is about to start where another one was at the end of an epoch; random states come later."""
    model = _plain(trainer.model)
    model.load_state_dict(state["model"])
    trainer.ema.ema.load_state_dict(state["ema"])
    trainer.ema.updates = state["updates"]
    trainer.optimizer.load_state_dict(state["optimizer"])
    trainer.scaler.load_state_dict(state["scaler"])
    trainer.stopper.__dict__.update(state["stopper"])
    trainer.best_fitness = state["best_fitness"]
    trainer.start_epoch = state["epoch"] + 1
    # A head that is trained twice (YOLO26) shifts the weight of its two losses from epoch to epoch.
    model.criterion = model.init_criterion()
    if hasattr(model.criterion, "update"):
        for _ in range(trainer.start_epoch):
            model.criterion.update()
    loader = trainer.train_loader
    if not loader.num_workers:
        loader.sampler.generator.set_state(state["sampler"])
        # Mosaic draws from the images loaded last.
        for index in state["buffer"]:
            loader.dataset.load_image(index)
        assert list(loader.dataset.buffer) == state["buffer"]


def random_states() -> dict[str, Any]:
    """Return the state of every source of randomness of this process."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),  # noqa: NPY002 - ultralytics draws from it
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Set what `random_states` returned."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])


def reseed(loader: Any, *parts: int) -> None:
    """Make what the worker processes will do a function of some numbers: seed, epoch, rank."""
    for name, generator in (("order", loader.sampler), ("workers", loader)):
        if getattr(generator, "generator", None) is not None:
            text = f"{name} {' '.join(map(str, parts))}"
            generator.generator.manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big"))


def checkpoint_bytes(model: Any, image_size: int, model_name: str) -> bytes:
    """Return a network alone in fp16, without date, paths, git state and optimizer: equal weights are equal bytes."""
    from copy import deepcopy

    from ultralytics import __version__

    model = deepcopy(_plain(model)).half().eval().to("cpu", memory_format=torch.contiguous_format)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.nan_to_num_()  # what fp16 cannot hold becomes its largest number
    model.requires_grad_(False)
    model.args = {"task": "detect", "imgsz": image_size}
    for attribute in ("criterion", "pt_path", "yaml_file"):
        if hasattr(model, attribute):
            setattr(model, attribute, None)
    if isinstance(getattr(model, "yaml", None), dict):
        model.yaml["yaml_file"] = model_name
    buffer = io.BytesIO()
    plain = {
        "model": model,
        "train_args": {"task": "detect", "imgsz": image_size, "model": model_name},
        "epoch": -1,
        "version": __version__,
        "license": "AGPL-3.0 (https://ultralytics.com/license)",
    }
    torch.save(plain, buffer)
    return buffer.getvalue()


def _plain(model: Any) -> Any:
    """Return the network inside of what distributes it."""
    from ultralytics.utils.torch_utils import unwrap_model

    return unwrap_model(model)
