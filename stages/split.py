"""Deal the images to train, val and test; what belongs together is never parted, and what was dealt never moves."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field, field_validator, model_validator

from plumbline.errors import DatasetError, first_and_count
from plumbline.files import replacing, write_json
from plumbline.manifest import read_dataset, write_table
from plumbline.named_groups import NONE, check_group_by, named_groups
from plumbline.near_duplicates import Ints
from plumbline.params import NearDuplicateParams, StageParams, load_section
from plumbline.split_assignment import (
    LEFT_OUT,
    SPLITS,
    SPLITS_SCHEMA,
    Names,
    earlier_splits,
    gone_images,
    read_assignment,
    write_assignment,
)
from plumbline.split_leaks import Leak, find_leaks
from plumbline.splitting import Dealing, count_classes, deal_images, worst_class_share_deviation
from stages.shape import exit_code, path_arguments


class FractionsParams(StageParams):
    """Share of the images, and of each class's boxes, that each split shall have."""

    train: float = Field(gt=0, lt=1, description="What the detector learns from.")
    val: float = Field(gt=0, lt=1, description="What epochs and settings are chosen by.")
    test: float = Field(gt=0, lt=1, description="What is read once, at the end.")

    @model_validator(mode="after")
    def _sum_to_one(self) -> FractionsParams:
        total = math.fsum((self.train, self.val, self.test))
        if abs(total - 1) > 1e-9:
            raise ValueError(f"three fractions that sum to 1 (they sum to {total:g})")
        return self


class SplitParams(StageParams):
    """How the images are dealt."""

    seed: int = Field(ge=0, description="Of the order in which groups of one size are dealt.")
    fractions: FractionsParams = Field(description="They sum to 1; a change moves no image that is dealt.")
    group_by: str = Field(
        description="What stays together besides: `none`, `folder`, a column of images.parquet, or `regex:<pattern>`"
        " whose first group, in the image's name in its source, names the group."
    )
    take_source: bool = Field(description="Take the source's own train, val and test as they are.")
    leak: Literal["error", "warning"] = Field(description="Whether what belongs together in two splits stops the run.")

    @field_validator("group_by")
    @classmethod
    def _groups(cls, value: str) -> str:
        return check_group_by(value)


SECTIONS: dict[str, type[StageParams]] = {"split": SplitParams, "near_duplicates": NearDuplicateParams}


def run(
    params: SplitParams,
    near_duplicates: NearDuplicateParams,
    *,
    labels: Path,
    assignment: Path,
    out: Path,
    metrics: Path,
    leaks: Path,
) -> dict[str, int | float]:
    """Write the table of splits.

    Args:
        params: Section split.
        near_duplicates: Section near_duplicates.
        labels: The validated dataset.
        assignment: Where each image stood after the last run, if there was one; written again.
        out: The table of splits.
        metrics: The counts.
        leaks: Every leak; written even when it stops the run.

    Raises:
        DatasetError: There are fewer groups than splits to fill; something leaks; the source has no split of its own
            to take; nothing is grouped by `group_by`; or the assignment cannot be read.
    """
    dataset = read_dataset(labels)
    images, fractions, bits = dataset.images, params.fractions.model_dump(), near_duplicates.max_hash_bits
    _say(f"{len(images)} images: looking for what belongs together")
    keys = named_groups(images, params.group_by)
    assigned = read_assignment(assignment)
    earlier = earlier_splits(images, assigned)
    placed = _take_source(images, earlier, labels) if params.take_source else earlier
    class_counts = count_classes(images, dataset.annotations, len(dataset.class_names))
    dealing = deal_images(images, class_counts, placed, fractions, seed=params.seed, bits=bits, keys=keys)
    found = find_leaks(images, dealing.splits, bits, keys)
    write_json(leaks, [dataclasses.asdict(leak) for leak in found])
    _judge(found, params, leaks_file=leaks, assignment=assignment)
    rows = pd.DataFrame({"image_id": images["image_id"], "split": dealing.splits, "group": dealing.groups})
    with replacing(out) as temporary:
        write_table(rows.sort_values("image_id"), SPLITS_SCHEMA, temporary)
    write_assignment(images, dealing.splits, assignment, gone_images(images, assigned))
    counts = _count(dealing, class_counts, fractions, num_leaks=len(found))
    write_json(metrics, counts)
    counts |= _count_moves(dealing.splits, earlier)
    ungrouped = 0 if keys is None else int((keys == "").sum())
    _tell(counts, dealing, out=out, assignment=assignment, ungrouped=ungrouped)
    return counts


def _take_source(images: pd.DataFrame, earlier: Names, labels: Path) -> Names:
    """Return the source's own splits, and the earlier ones for images that it deals nowhere.

    Raises:
        DatasetError: The source has no image in one of the splits, or an unknown split.
    """
    source = images["split"].to_numpy(object)
    have = set(source) - {""}
    if unknown := sorted(have - set(SPLITS)):
        raise DatasetError(f"{labels}: expected the source's splits to be {', '.join(SPLITS)}, got {unknown[0]!r}")
    if missing := [name for name in SPLITS if name not in have]:
        got = ", ".join(f"{(source == name).sum()} in {name}" for name in SPLITS if name in have) or "no split at all"
        raise DatasetError(
            f"{labels}: expected the source itself to put images into {', '.join(SPLITS)}, got {got} and none in"
            f" {', '.join(missing)}; add its list to the source, or set split.take_source to false in params.yaml"
        )
    if nowhere := int((source == "").sum()):
        _say(f"the source puts {nowhere} of {len(source)} images into no split; they are dealt like new ones")
    return np.where(source == "", earlier, source).astype(object)


def _judge(leaks: list[Leak], params: SplitParams, *, leaks_file: Path, assignment: Path) -> None:
    """Stop at leaks, or tell them.

    Raises:
        DatasetError: There are some, and they are an error.
    """
    if not leaks:
        return
    stop = params.leak == "error"
    head = f"{len(leaks)} {'leak' if len(leaks) == 1 else 'leaks'} between the splits, expected none"
    text = first_and_count([str(leak) for leak in leaks], where=str(leaks_file))
    if not stop:
        _say(f"warning: {head}:\n{text}")
        return
    remedy = (
        "correct the source's lists, or set split.take_source to false"
        if params.take_source
        else f"remove one of each two, or delete {assignment} to deal all images afresh"
    )
    remedy += f", or change split.group_by ({params.group_by})" if params.group_by != NONE else ""
    raise DatasetError(f"{head}; {remedy}, or set split.leak to warning in params.yaml:\n{text}")


def _count(
    dealing: Dealing, class_counts: Ints, fractions: Mapping[str, float], *, num_leaks: int
) -> dict[str, int | float]:
    """Return the stage's metrics, which a second run with the same inputs gives again."""
    dealt = dealing.splits != LEFT_OUT
    deviation = worst_class_share_deviation(dealing.splits[dealt], class_counts[dealt], fractions)
    counts: dict[str, int | float] = {
        "num_groups": int(dealing.groups.max()) + 1,
        "num_near_duplicate_pairs": dealing.num_near_duplicate_pairs,
        "worst_class_share_deviation": round(deviation, 6),
        "num_leaks": num_leaks,
        "num_images_left_out": int((dealing.splits == LEFT_OUT).sum()),
    }
    for name in SPLITS:
        counts[f"num_images_{name}"] = int((dealing.splits == name).sum())
        counts[f"num_boxes_{name}"] = int(class_counts[dealing.splits == name].sum())
    return counts


def _count_moves(splits: Names, earlier: Names) -> dict[str, int]:
    """Return how many images are new, stand where they stood, or were moved (by the source alone).

    This is told, and is no metric: the next run, with nothing changed, would say otherwise.
    """
    return {
        "num_images_new": int(((earlier == "") & (splits != LEFT_OUT)).sum()),
        "num_images_kept": int((earlier == splits).sum()),
        "num_images_moved": int(((earlier != "") & (earlier != splits)).sum()),
    }


def _tell(counts: dict[str, int | float], dealing: Dealing, *, out: Path, assignment: Path, ungrouped: int) -> None:
    sizes = ", ".join(f"{name} {counts[f'num_images_{name}']}" for name in SPLITS)
    moves = f"{counts['num_images_new']} new, {counts['num_images_kept']} where they were"
    if counts["num_images_moved"]:
        moves += f", {counts['num_images_moved']} moved to where the source puts them"
    _say(f"{sizes} images in {counts['num_groups']} groups ({moves}); kept in {assignment}")
    if ungrouped:
        _say(f"{ungrouped} of {len(dealing.splits)} images have no group by split.group_by; each is one of its own")
    if dealing.bridges:
        what = first_and_count(dealing.bridges, where=f"{out}, split {LEFT_OUT}")
        _say(
            f"warning: {len(dealing.bridges)} left out; remove one side, or delete {assignment} to deal afresh:\n{what}"
        )


def _say(text: str) -> None:
    print(f"split: {text}", flush=True)  # noqa: T201 - the command's own output


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    paths = path_arguments(__doc__, ("labels", "assignment", "out", "metrics", "leaks"), argv)

    def work() -> None:
        params = load_section(paths.params, "split", SplitParams)
        near_duplicates = load_section(paths.params, "near_duplicates", NearDuplicateParams)
        run(
            params,
            near_duplicates,
            labels=paths.labels,
            assignment=paths.assignment,
            out=paths.out,
            metrics=paths.metrics,
            leaks=paths.leaks,
        )

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
