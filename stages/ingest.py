"""Read labelled images of any format, or draw digits, into the canonical dataset.

Nothing is judged here: what is wrong with an image, a label or a box is a row, or a finding, for `validate`.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
from pydantic import Field, ValidationInfo, field_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from plumbline.digits import Image, Scene, SceneStyle, draw_scenes, draw_single_digits
from plumbline.errors import DatasetError
from plumbline.files import replacing, write_json
from plumbline.formats import FORMATS
from plumbline.formats.reading import ImageRecord, LabelRow, ReadResult, build_dataset
from plumbline.intake import ScanSettings, finish, read_source, scan
from plumbline.manifest import Dataset, write_dataset
from plumbline.params import StageParams, load_section
from plumbline.sources import open_source
from plumbline.sources.video import video_address
from stages.shape import exit_code, path_arguments

GENERATOR_FILE = "generator.yaml"
# What a run that was cut short has done; the next one goes on from there.
WORK = Path(".cache") / "ingest"


class VideoParams(StageParams):
    """Which frames of a video become images."""

    every_s: float = Field(gt=0, allow_inf_nan=False, description="One frame for so many seconds.")
    max_hash_bits: int = Field(
        ge=-1,
        le=64,
        description="A frame whose perceptual hash differs from the last one's by no more is left out; -1 keeps all.",
    )


class DatasetParams(StageParams):
    """Where labelled images come from."""

    source: str = Field(
        min_length=1, description="Folder, zip or tar, s3:// prefix, or video; or a folder with a generator.yaml."
    )
    format: str = Field(description="`auto`, `digits`, or a row of plumbline.formats.FORMATS.")
    class_names: list[str] = Field(min_length=1, description="Index is class_id.")
    video: VideoParams = Field(description="For a source that is a video, or a folder with videos.")
    images_per_shard: int = Field(
        ge=0, description="Images in a tar shard of the dataset, on average; 0 for a loose file for each image."
    )

    @field_validator("format")
    @classmethod
    def _is_known(cls, value: str) -> str:
        known = ("auto", "digits", *FORMATS)
        if value not in known:
            raise ValueError(f"one of: {', '.join(known)}")
        return value

    @field_validator("source")
    @classmethod
    def _is_plain(cls, value: str) -> str:
        # dvc.yaml puts it between single quotes.
        if "'" in value or "${" in value or not value.isprintable():
            raise ValueError("a path without quotes, ${ and line breaks")
        return value

    @field_validator("class_names")
    @classmethod
    def _are_names(cls, value: list[str]) -> list[str]:
        if len(set(value)) < len(value):
            raise ValueError("every name once")
        if not all(name.isprintable() and name.strip() == name != "" for name in value):
            raise ValueError("names of printable characters, without space around them")
        return value

    def missing_files(self) -> dict[str, str]:
        """Return what is wrong with the source, for the check before a run."""
        if self.source.startswith("s3://") or Path(self.source).exists():
            return {}
        return {"source": f"nothing at {self.source!r}, expected images with their labels; correct the path"}


class DigitsParams(StageParams):
    """How handwritten digits are drawn, for a source whose generator.yaml says so: in scenes, or for classify alone."""

    # The validators look at the fields above their own.
    seed: int = Field(ge=0, description="Of the pools and the scenes.")
    num_scenes: int = Field(ge=1, le=99_999, description="Images to draw.")
    num_pools: int = Field(ge=3, le=100, description="Groups that the handwriting is dealt into; no scene mixes two.")
    scene_size: int = Field(ge=32, le=4096, description="Side of the square image, pixels.")
    min_digits: int = Field(ge=1, le=16, description="Per scene; a pool of 100 has 17 samples.")
    max_digits: int = Field(ge=1, le=16, description="Per scene.")
    min_size: int = Field(ge=8, description="Height of a digit, pixels; a sample has 8.")
    max_size: int = Field(ge=8, description="Height of a digit, pixels.")
    digit_size: int = Field(ge=16, le=1024, description="Side of the image of a digit alone, pixels.")

    @field_validator("max_digits")
    @classmethod
    def _is_most(cls, value: int, info: ValidationInfo) -> int:
        if value < info.data.get("min_digits", value):
            raise ValueError(f"min_digits ({info.data['min_digits']}) or more")
        return value

    @field_validator("max_size")
    @classmethod
    def _fits(cls, value: int, info: ValidationInfo) -> int:
        smallest, largest = info.data.get("min_size", value), info.data.get("scene_size", value)
        if not smallest <= value <= largest:
            raise ValueError(f"min_size ({smallest}) to scene_size ({largest})")
        return value


class ScanParams(StageParams):
    """How the images are scanned. Nothing here changes a result, so dvc.yaml does not list this section."""

    workers: int = Field(ge=0, le=256, description="Processes; 0 for as many as there are cores.")
    shard_size: int = Field(ge=1, description="Images that are one task, and that a run cut short does not do again.")
    cluster: str = Field(description="Address of a Dask scheduler, tcp://host:port; empty for processes here.")


# Of each image that is drawn: what it is called, its pixels, its labels.
Drawn = Iterator[tuple[ImageRecord, Image, list[LabelRow]]]

SECTIONS: dict[str, type[StageParams]] = {"dataset": DatasetParams, "digits": DigitsParams, "scan": ScanParams}


def run(
    params: DatasetParams,
    digits: DigitsParams,
    settings: ScanSettings,
    *,
    task: str,
    source: str,
    out: Path,
    metrics: Path,
) -> dict[str, int]:
    """Write the dataset folder `out` and the counts in it to `metrics`.

    Args:
        params: Section dataset.
        digits: Section digits.
        settings: Section scan.
        task: Of digits, ``classify`` draws each alone; every other source is read the same for every task.
        source: As in `params`, or another.
        out: The dataset's folder.
        metrics: The counts.

    Raises:
        DatasetError: There is no such source, no image in it, or no known format; or class_names do not fit.
    """
    _check_folders(Path(source), out)
    work = WORK / hashlib.sha256(f"{out.resolve()}\n{source}".encode()).hexdigest()[:16]
    names = tuple(params.class_names)
    if _is_digits(Path(source), params):
        dataset = _read_digits(task, digits, names, work, settings)
    else:
        address = video_address(source, params.video.every_s, params.video.max_hash_bits)
        dataset = read_source(address, params.format, names, work, _tell, settings=settings)
    with replacing(out) as folder:
        folder.mkdir()
        write_dataset(dataset, folder)
        finish(work, dataset, folder, params.images_per_shard, _tell)
    counts = _count(dataset)
    write_json(metrics, counts)
    _tell(f"{counts['num_images']} images, {counts['num_boxes']} labels, {counts['num_findings']} findings")
    return counts


def _tell(text: str) -> None:
    print(f"ingest: {text}", flush=True)  # noqa: T201 - progress of the command


def _check_folders(source: Path, out: Path) -> None:
    real_source, real_out = source.resolve(), out.resolve()
    if real_source.is_relative_to(real_out) or real_out.is_relative_to(real_source):
        hint = "change dataset.source in params.yaml"
        raise DatasetError(f"{source}: overlaps the output, expected a folder apart from {out}; {hint}")


def _is_digits(source: Path, params: DatasetParams) -> bool:
    """Say whether the source asks for drawn digits.

    Raises:
        DatasetError: It does, and its generator.yaml or the class names do not fit.
    """
    generator = source / GENERATOR_FILE
    if params.format != "digits" and not (params.format == "auto" and generator.is_file()):
        return False
    _check_generator(generator)
    if len(params.class_names) != 10:
        raise DatasetError(
            f"{generator}: digits have 10 classes, expected 10 names, got {len(params.class_names)}; correct"
            " dataset.class_names in params.yaml"
        )
    return True


def _check_generator(path: Path) -> None:
    try:
        values = YAML(typ="safe", pure=True).load(path.read_bytes())
    except FileNotFoundError as error:
        hint = "set dataset.format in params.yaml to auto"
        raise DatasetError(f"{path}: no such file, expected `generator: digits`; {hint}") from error
    except (YAMLError, ValueError) as error:
        raise DatasetError(f"{path}: not YAML, expected `generator: digits`; correct it") from error
    if not isinstance(values, dict) or values.get("generator") != "digits":
        raise DatasetError(f"{path}: unknown generator, expected `generator: digits`, got {values!r}; correct it")


def _read_digits(
    task: str, digits: DigitsParams, class_names: tuple[str, ...], work: Path, settings: ScanSettings
) -> Dataset:
    folder = work / "images"
    folder.mkdir(parents=True, exist_ok=True)
    drawn = _single_digits(digits, class_names) if task == "classify" else _scenes(digits, class_names)
    records: list[ImageRecord] = []
    result = ReadResult()
    for record, image, rows in drawn:
        _, data = cv2.imencode(".png", image)
        (folder / record.name).write_bytes(data.tobytes())
        records.append(record)
        result.rows.extend(rows)
        if len(records) % 200 == 0:
            _tell(f"{len(records)} images drawn")
    scans = scan(open_source(str(folder)), [record.name for record in records], work, _tell, settings, copy=False)
    return build_dataset(records, scans, result, class_names, work)


def _single_digits(digits: DigitsParams, class_names: tuple[str, ...]) -> Drawn:
    """Give an image for each sample, with a label of the whole image; `source` and `source_file` name the sample."""
    for index, (image, class_id) in enumerate(draw_single_digits(digits.digit_size)):
        name = f"digit_{index:05d}.png"
        row = LabelRow(name, class_id, class_names[class_id], None, f"digits:{index}", 0)
        yield ImageRecord(name, "", f"digits:{index}"), image, [row]


def _scenes(digits: DigitsParams, class_names: tuple[str, ...]) -> Drawn:
    """Give the scenes, labelled from what was drawn; `source` names the samples."""
    style = SceneStyle(**digits.model_dump(exclude={"num_scenes", "num_pools", "digit_size"}))
    for scene in draw_scenes(digits.num_scenes, digits.num_pools, style):
        name = f"scene_{scene.index:05d}.png"
        note = "digits:" + ",".join(str(sample_id) for sample_id in scene.sample_ids)
        yield ImageRecord(name, f"pool_{scene.pool:02d}", note), scene.image, _scene_rows(scene, name, class_names)


def _scene_rows(scene: Scene, name: str, class_names: tuple[str, ...]) -> list[LabelRow]:
    """Return the rows of one scene; source_line is the place of the sample in the image's `source`."""
    boxes, class_ids = scene.boxes_xyxy.tolist(), scene.class_ids.tolist()
    return [
        LabelRow(name, class_id, class_names[class_id], (x1, y1, x2, y2), "digits", line)
        for line, ((x1, y1, x2, y2), class_id) in enumerate(zip(boxes, class_ids, strict=True), start=1)
    ]


def _count(dataset: Dataset) -> dict[str, int]:
    return {
        "num_boxes": len(dataset.annotations),
        "num_classes": len(dataset.class_names),
        "num_findings": len(dataset.findings),
        "num_images": len(dataset.images),
        "num_unreadable_images": int((~dataset.images["readable"]).sum()),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    paths = path_arguments(__doc__, ("out", "metrics"), argv, words=("source", "task"))

    def work() -> None:
        params = load_section(paths.params, "dataset", DatasetParams)
        digits = load_section(paths.params, "digits", DigitsParams)
        settings = ScanSettings(**load_section(paths.params, "scan", ScanParams).model_dump())
        run(params, digits, settings, task=paths.task, source=paths.source, out=paths.out, metrics=paths.metrics)

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
