"""Deal the images to train, val and test, so that no group or near-duplicate is parted."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from pydantic import Field, model_validator

from plumbline.files import replacing, write_json
from plumbline.manifest import read_dataset, write_table
from plumbline.params import StageParams, load_section
from plumbline.splitting import SPLITS_SCHEMA, assign_splits, count_classes, group_images, worst_class_share_deviation
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
    fractions: FractionsParams = Field(description="They sum to 1.")
    near_duplicate_bits: int = Field(
        ge=0, le=16, description="Images whose 64-bit perceptual hashes differ by no more bits stay together."
    )


SECTIONS: dict[str, type[StageParams]] = {"split": SplitParams}


def run(params: SplitParams, *, labels: Path, out: Path, metrics: Path) -> dict[str, float]:
    """Write the table of splits to `out` and the counts to `metrics`.

    Raises:
        DatasetError: There are fewer than three groups of images.
    """
    dataset = read_dataset(labels)
    images, fractions = dataset.images, params.fractions.model_dump()
    grouping = group_images(images, params.near_duplicate_bits)
    class_counts = count_classes(images, dataset.annotations, len(dataset.class_names))
    splits = assign_splits(grouping.groups, class_counts, images["sha256"].tolist(), fractions, params.seed)
    rows = pd.DataFrame({"image_id": images["image_id"], "split": splits, "group": grouping.groups})
    with replacing(out) as temporary:
        write_table(rows.sort_values("image_id"), SPLITS_SCHEMA, temporary)
    counts: dict[str, float] = {
        "num_groups": int(grouping.groups.max()) + 1,
        "num_near_duplicate_pairs": grouping.num_near_duplicate_pairs,
        "worst_class_share_deviation": round(worst_class_share_deviation(splits, class_counts, fractions), 6),
    }
    for name in fractions:
        counts[f"num_images_{name}"] = int((splits == name).sum())
        counts[f"num_boxes_{name}"] = int(class_counts[splits == name].sum())
    write_json(metrics, counts)
    sizes = ", ".join(f"{name} {counts[f'num_images_{name}']}" for name in fractions)
    print(f"split: {sizes} images in {counts['num_groups']} groups", flush=True)  # noqa: T201 - the command's own output
    return counts


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    paths = path_arguments(__doc__, ("labels", "out", "metrics"), argv)

    def work() -> None:
        params = load_section(paths.params, "split", SplitParams)
        run(params, labels=paths.labels, out=paths.out, metrics=paths.metrics)

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
