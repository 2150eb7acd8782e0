"""A detector that nobody trained, for tests that need a network and not its skill."""

from __future__ import annotations

from pathlib import Path


def make_checkpoint(path: Path, model: str, num_classes: int, seed: int = 0, image_size: int = 96) -> None:
    """Write an untrained but lively detector: weights drawn so that activations keep their scale."""
    import torch

    from plumbline.yolo import quiet_ultralytics

    quiet_ultralytics()
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(seed)
    network = DetectionModel(f"{model}.yaml", nc=num_classes, verbose=False)
    network.eval()
    for name, parameter in network.model[-1].named_parameters():
        # Fresh heads give every cell the same tiny score: spread them. The bins of the distribution are no weights.
        if not name.startswith("dfl"):
            parameter.data += 0.05 * torch.randn_like(parameter)
    torch.save({"model": network.half(), "train_args": {"task": "detect", "imgsz": image_size}, "epoch": -1}, path)
