"""The sections ``train.detect`` and ``train.classify`` of params.yaml, typed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from plumbline.params import StageParams

Device = Literal["auto", "cpu"] | Annotated[int, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]


class DetectTraining(StageParams):
    """Section ``train.detect``."""

    model: str = Field(pattern=r"^yolo[a-z0-9-]+$", description="detector architecture: yolo11n, yolo26n...")
    pretrained: str = Field(min_length=1, description="none, a path to a .pt file, or a name to download")
    epochs: int = Field(ge=1, description="passes over the train split")
    patience: int = Field(ge=1, description="stop after so many epochs without a better val score")
    image_size: int = Field(ge=32, multiple_of=32, description="side of the square input, pixels")
    batch: int = Field(ge=1, description="images per optimizer step, over all GPUs")
    optimizer: Literal["SGD", "MuSGD", "Adam", "AdamW", "NAdam", "RAdam", "RMSProp"]
    learning_rate: float = Field(gt=0, le=1, description="initial")
    flip_horizontal: Probability = Field(description="probability; 0 where left and right matter, as in text")
    mosaic: Probability = Field(description="probability of pasting four images into one")
    close_mosaic: int = Field(ge=0, description="the last so many epochs see no mosaic")
    precision: Literal["fp32", "bf16"]
    seed: int = Field(ge=0, description="of every random state")
    device: Device = Field(description="auto (every GPU there is), cpu, or a CUDA index")


class ClassifyTraining(StageParams):
    """Section ``train.classify``."""

    # Whatever is typed: who looks for the name suggests the nearest, which a pattern cannot.
    model: str = Field(min_length=1, description="lenet, or a name of torchvision, ultralytics or timm")
    pretrained: str = Field(min_length=1, description="none, a path to weights, or default: those of the library")
    epochs: int = Field(ge=1, description="passes over the train split")
    patience: int = Field(ge=1, description="stop after so many epochs without a better val score")
    image_size: int = Field(ge=8, description="side of the square input, pixels")
    resize: Literal["letterbox", "crop", "stretch"] = Field(description="from an image to the square input")
    batch: int = Field(ge=1, description="images per optimizer step, over all GPUs")
    optimizer: Literal["SGD", "Adam", "AdamW"]
    learning_rate: float = Field(gt=0, description="the highest: warm-up to it, then a cosine down to 0")
    warmup_epochs: int = Field(ge=0)
    weight_decay: float = Field(ge=0)
    label_smoothing: float = Field(ge=0, lt=1)
    focal_gamma: float = Field(ge=0, description="0: cross-entropy; 2 is usual for focal loss")
    class_weights: Literal["none", "balanced"] = Field(description="balanced: inverse to a class's images in train")
    auxiliary_weight: float = Field(ge=0, description="of the loss of each auxiliary head, where there is one")
    flip_horizontal: Probability = Field(description="probability; 0 where left and right matter, as in digits")
    rotate_degrees: float = Field(ge=0, le=180, description="turned by up to so much, either way")
    shift: float = Field(ge=0, lt=1, description="moved by up to this share of the side, either way")
    zoom: float = Field(ge=0, lt=1, description="scaled by 1 - zoom to 1 + zoom")
    color_jitter: float = Field(
        ge=0, lt=1, description="brightness, contrast and saturation times 1 - this to 1 + this"
    )
    precision: Literal["fp32", "bf16"]
    seed: int = Field(ge=0, description="of every random state")
    device: Device = Field(description="auto (every GPU there is), cpu, or a CUDA index")


TASK_SETTINGS: dict[str, type[StageParams]] = {"detect": DetectTraining, "classify": ClassifyTraining}


class TrainParams(StageParams):
    """Section ``train``: one part for each task."""

    detect: DetectTraining
    classify: ClassifyTraining
