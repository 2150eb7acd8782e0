"""The trained network with its head cut where numpy takes over."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch

from plumbline.errors import BackendError
from plumbline.networks import Network
from plumbline.runtime.artifact import InputSpec, OutputSpec, Preprocessing
from plumbline.torch_files import check_torch_file
from plumbline.yolo import first_line, quiet_ultralytics


class SplitHead(torch.nn.Module):
    """A fused YOLO detector that returns the raw convolutions of its head.

    The input is RGB, shape (1, 3, H, W), 0..1; the outputs are, per stride, box (1, 4 * reg_max, h, w) and class logits
    (1, C, h, w).
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        head = model.model[-1]
        if getattr(head, "one2one_cv2", None) is not None:
            # YOLO26 trains two heads; ultralytics 8.4 falls back to the one that needs suppression.
            head.end2end = True
        self.nms_free = bool(head.end2end)
        if not model.is_fused():
            with redirect_stdout(io.StringIO()):
                model.fuse(verbose=False)
        self.body = model.model[:-1]
        self.saved = set(model.save)
        self.head_from = list(head.f)
        self.box_convs = head.one2one_cv2 if self.nms_free else head.cv2
        self.class_convs = head.one2one_cv3 if self.nms_free else head.cv3
        self.reg_max = int(head.reg_max)
        self.strides = tuple(int(stride) for stride in head.stride)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the body, then the two convolutions of each scale."""
        kept: list[torch.Tensor | None] = []
        for module in self.body:
            if module.f != -1:
                x = kept[module.f] if isinstance(module.f, int) else [x if j == -1 else kept[j] for j in module.f]
            x = module(x)
            kept.append(x if module.i in self.saved else None)
        features = [kept[index] for index in self.head_from]
        outputs: list[torch.Tensor] = []
        for feature, box, logits in zip(features, self.box_convs, self.class_convs, strict=True):
            outputs += [box(feature), logits(feature)]
        return tuple(outputs)

    def output_spec(self) -> OutputSpec:
        """Return what the runtime needs to decode the outputs."""
        names = tuple(f"{kind}_{stride}" for stride in self.strides for kind in ("box", "cls"))
        return OutputSpec(names, self.strides, self.reg_max, self.nms_free)


def load_network(weights: Path) -> Network:
    """Load a checkpoint as it is shipped: fused, in fp32, on the CPU, with its head cut.

    Raises:
        BackendError: It is not a detector that the train stage wrote.
    """
    quiet_ultralytics()
    from ultralytics.nn.modules.head import Detect
    from ultralytics.nn.tasks import load_checkpoint

    try:
        check_torch_file(weights)
        model, checkpoint = load_checkpoint(weights, device=torch.device("cpu"))
        size = int(checkpoint["train_args"]["imgsz"])
    except Exception as error:  # a pickled model whose classes are others here raises almost anything
        raise BackendError(
            f"{weights}: not a checkpoint that ultralytics can read ({first_line(error)}); train again"
        ) from error
    if type(model.model[-1]) is not Detect:
        raise BackendError(
            f"{weights}: expected a detector, got the head {type(model.model[-1]).__name__}; train again"
        )
    split_head = SplitHead(model).eval()
    return Network(split_head, InputSpec("images", (size, size)), Preprocessing(), split_head.output_spec())
