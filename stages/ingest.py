"""Read labelled images of any format, or draw digits, into the canonical dataset.

Nothing is judged here: what is wrong with an image, a label or a box is a row, or a finding, for `validate`.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import cv2
from pydantic import Field, ValidationInfo, field_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from plumbline.digits import Scene, SceneStyle, draw_scenes
from plumbline.errors import DatasetError
from plumbline.files import replacing, write_json
from plumbline.formats import FORMATS, open_format, sniff
from plumbline.formats.reading import (
    ImageRecord,
    LabelRow,
    ReadFinding,
    ReadResult,
    as_opened,
    build_dataset,
    list_files,
    list_images,
)
from plumbline.image_scan import IMAGE_SUFFIXES, ImageScan, scan_images
from plumbline.manifest import Dataset, write_dataset
from plumbline.params import StageParams, load_section
from stages.shape import exit_code, path_arguments

GENERATOR_FILE = "generator.yaml"

# Files that a person would count among the images, and that no stage here can read.
OTHER_IMAGE_SUFFIXES = (".avif", ".gif", ".heic", ".heif", ".jp2", ".ppm")
SPLIT_FOLDERS = {"train", "val", "valid", "test"}


class DatasetParams(StageParams):
    """Where labelled images come from."""

    source: str = Field(min_length=1, description="Folder with images and labels, or with a generator.yaml.")
    format: str = Field(description="`auto`, `digits`, or a row of plumbline.formats.FORMATS.")
    class_names: list[str] = Field(min_length=1, description="Index is class_id.")

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
        if Path(self.source).is_dir():
            return {}
        return {"source": f"no folder {self.source!r}, expected one with images and their labels; correct the path"}


class DigitsParams(StageParams):
    """How scenes of handwritten digits are drawn, for a source whose generator.yaml says so."""

    # The validators look at the fields above their own.
    seed: int = Field(ge=0, description="Of the pools and the scenes.")
    num_scenes: int = Field(ge=1, le=99_999, description="Images to draw.")
    num_pools: int = Field(ge=3, le=100, description="Groups that the handwriting is dealt into; no scene mixes two.")
    scene_size: int = Field(ge=32, le=4096, description="Side of the square image, pixels.")
    min_digits: int = Field(ge=1, le=16, description="Per scene; a pool of 100 has 17 samples.")
    max_digits: int = Field(ge=1, le=16, description="Per scene.")
    min_size: int = Field(ge=8, description="Height of a digit, pixels; a sample has 8.")
    max_size: int = Field(ge=8, description="Height of a digit, pixels.")

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


SECTIONS: dict[str, type[StageParams]] = {"dataset": DatasetParams, "digits": DigitsParams}


def run(params: DatasetParams, digits: DigitsParams, *, source: Path, out: Path, metrics: Path) -> dict[str, int]:
    """Write the dataset folder `out` and the counts in it to `metrics`.

    Raises:
        DatasetError: There is no such folder, no image in it, or no known format; or class_names do not fit.
    """
    _check_folders(source, out)
    format_name = _format_of(source, params)
    with replacing(out) as folder:
        (folder / "images").mkdir(parents=True)
        if format_name == "digits":
            records, result = _draw(digits, tuple(params.class_names), folder / "images")
            scans = _scan(folder / "images", records)
        else:
            records = _copy(source, format_name, folder / "images")
            _tell_what_is_left_out(source, records)
            scans = _scan(folder / "images", records)
            result = open_format(format_name).read(source, tuple(params.class_names), scans)
            result = replace(result, findings=[*_unreadable(records, scans), *result.findings])
        dataset = build_dataset(records, scans, result, tuple(params.class_names), folder)
        write_dataset(dataset, folder)
    counts = _count(dataset)
    write_json(metrics, counts)
    _tell(f"{counts['num_images']} images, {counts['num_boxes']} boxes, {counts['num_findings']} findings")
    return counts


def _unreadable(records: Sequence[ImageRecord], scans: Mapping[str, ImageScan]) -> list[ReadFinding]:
    """Say why an image cannot be read, while the scan still knows."""
    return [
        ReadFinding(
            source_file=record.source,
            source_line=0,
            code="unreadable_image",
            message=f"image cannot be decoded ({scans[record.name].problem}), expected a whole image; replace the file",
            image=record.name,
        )
        for record in records
        if not scans[record.name].readable
    ]


def _tell_what_is_left_out(source: Path, records: Sequence[ImageRecord]) -> None:
    """Name files that look like images and are not taken, and a split of the source's own, which is not used."""
    taken = {record.name for record in records}
    left = [name for name in list_files(source, (*IMAGE_SUFFIXES, *OTHER_IMAGE_SUFFIXES)) if name not in taken]
    if left:
        shown = ", ".join(left[:10]) + (f" and {len(left) - 10} more" if len(left) > 10 else "")
        _tell(f"image files left out: {len(left)} (another place than the format's, or another type): {shown}")
    folders = {part for name in taken for part in PurePosixPath(name).parts[:-1]}
    if folders & SPLIT_FOLDERS or (source / "ImageSets").is_dir():
        _tell("the source's own train, val and test are not used: the split stage deals anew, without near-duplicates")


def _tell(text: str) -> None:
    print(f"ingest: {text}", flush=True)  # noqa: T201 - progress of the command


def _check_folders(source: Path, out: Path) -> None:
    if not source.exists():
        hint = "correct dataset.source in params.yaml"
        raise DatasetError(f"{source}: no such folder, expected images with their labels; {hint}")
    if not source.is_dir():
        raise DatasetError(f"{source}: expected a folder, got a file; set dataset.source in params.yaml to its folder")
    real_source, real_out = source.resolve(), out.resolve()
    if real_source.is_relative_to(real_out) or real_out.is_relative_to(real_source):
        hint = "change dataset.source in params.yaml"
        raise DatasetError(f"{source}: overlaps the output, expected a folder apart from {out}; {hint}")


def _format_of(source: Path, params: DatasetParams) -> str:
    """Return `digits` or a row of FORMATS."""
    generator = source / GENERATOR_FILE
    if params.format == "digits" or (params.format == "auto" and generator.is_file()):
        _check_generator(generator)
        if len(params.class_names) != 10:
            got = len(params.class_names)
            raise DatasetError(
                f"{generator}: digits have 10 classes, expected 10 names, got {got}; correct dataset.class_names"
                " in params.yaml"
            )
        return "digits"
    if not list_images(source):
        raise DatasetError(
            f"{source}: no image in this folder, expected files ending in {', '.join(IMAGE_SUFFIXES)};"
            " correct dataset.source in params.yaml"
        )
    return sniff(source) if params.format == "auto" else params.format


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


def _copy(source: Path, format_name: str, folder: Path) -> list[ImageRecord]:
    """Copy the images' bytes as they are (never a link: whatever happens here cannot touch the user's files)."""
    names = open_format(format_name).find_images(source)
    for name in names:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(source / name, target)
        except OSError as error:
            hint = "make it readable, or remove it"
            raise DatasetError(f"{source / name}: cannot be copied ({error.strerror}); {hint}") from error
    return [ImageRecord(name, "", as_opened(source, name)) for name in names]


def _draw(digits: DigitsParams, class_names: tuple[str, ...], folder: Path) -> tuple[list[ImageRecord], ReadResult]:
    """Draw the scenes as PNG files, and label them from what was drawn."""
    style = SceneStyle(**digits.model_dump(exclude={"num_scenes", "num_pools"}))
    records: list[ImageRecord] = []
    result = ReadResult()
    for scene in draw_scenes(digits.num_scenes, digits.num_pools, style):
        name = f"scene_{scene.index:05d}.png"
        _, data = cv2.imencode(".png", scene.image)
        (folder / name).write_bytes(data.tobytes())
        note = "digits:" + ",".join(str(sample_id) for sample_id in scene.sample_ids)
        records.append(ImageRecord(name, f"pool_{scene.pool:02d}", note))
        result.rows.extend(_scene_rows(scene, name, class_names))
        if len(records) % 200 == 0:
            _tell(f"{len(records)} of {digits.num_scenes} scenes drawn")
    return records, result


def _scene_rows(scene: Scene, name: str, class_names: tuple[str, ...]) -> list[LabelRow]:
    """Return the rows of one scene; source_line is the place of the sample in the image's `source`."""
    boxes, class_ids = scene.boxes_xyxy.tolist(), scene.class_ids.tolist()
    return [
        LabelRow(name, class_id, class_names[class_id], (x1, y1, x2, y2), "digits", line)
        for line, ((x1, y1, x2, y2), class_id) in enumerate(zip(boxes, class_ids, strict=True), start=1)
    ]


def _scan(folder: Path, records: Sequence[ImageRecord]) -> dict[str, ImageScan]:
    names = [record.name for record in records]
    paths = [folder / name for name in names]
    scans = scan_images(paths, os.cpu_count() or 1, lambda done: _tell(f"{done} of {len(names)} images scanned"))
    return dict(zip(names, scans, strict=True))


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
    paths = path_arguments(__doc__, ("source", "out", "metrics"), argv)

    def work() -> None:
        params = load_section(paths.params, "dataset", DatasetParams)
        digits = load_section(paths.params, "digits", DigitsParams)
        run(params, digits, source=paths.source, out=paths.out, metrics=paths.metrics)

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
