"""Rows of what changed in the data: images and labels, which split an image is in, and what validation found."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from plumbline.dataset_diff import IMAGE_CHANGES, LABEL_CHANGES, DatasetDiff, diff_datasets
from plumbline.review.changes import Change, Verdict, judge
from plumbline.review.revision import Revision
from plumbline.score_comparison import HERE, THERE, pair_images

SPLITS = ("train", "val", "test")


def data_rows(base: Revision, head: Revision) -> Iterator[Change]:
    """Make the rows of images, labels by class, splits and findings."""
    words = "boxes" if head.run.task == "detect" else "labels"
    diff = diff_datasets(base.run.data, head.run.data)
    yield from _count_rows(diff, words)
    yield from _class_rows(diff, words)
    yield from _split_rows(base, head)
    yield from _validation_rows(base, head)


def _row(metric: str, title: str, base: int, head: int, note: str = "") -> Change:
    verdict = judge(base, head, higher_is_better=None)
    return Change(
        kind="data", artifact="", metric=metric, title=title, base=base, head=head, verdict=verdict, note=note[:1000]
    )


def _count_rows(diff: DatasetDiff, words: str) -> Iterator[Change]:
    for key, title, counts, changes, kinds in (
        ("num_images", "Images", diff.num_images, diff.images["change"], IMAGE_CHANGES),
        (f"num_{words}", words.capitalize(), diff.num_labels, diff.labels["change"], LABEL_CHANGES),
    ):
        found = changes.value_counts()
        told = [f"{found[kind]:,} {kind}" for kind in kinds if kind in found.index]
        inside = " in images of both" if key != "num_images" and told else ""
        yield _row(key, title, *counts, note=", ".join(told) + inside)


def _class_rows(diff: DatasetDiff, words: str) -> Iterator[Change]:
    for name, counts in diff.classes.iterrows():
        told = {
            "new images": counts["in_added_images"], "added": counts["added"], "from other classes":
            counts["reclassified_to"], "with images that went": -counts["in_removed_images"], "removed":
            -counts["removed"], "to other classes": -counts["reclassified_from"],
        }  # fmt: skip
        note = [f"{count:+,} {what}" for what, count in told.items() if count]
        note += [f"{counts[what]:,} {what}" for what in ("moved",) if counts[what]]
        key = f"num_{words}_class_{name}"[:400]
        yield _row(key, str(name)[:400], int(counts["before"]), int(counts["after"]), ", ".join(note))


def _split_rows(base: Revision, head: Revision) -> Iterator[Change]:
    before, after = (side.splits.set_index("image_id")["split"] for side in (base, head))
    for split in SPLITS:
        counts = int((before == split).sum()), int((after == split).sum())
        yield _row(f"num_images_{split}", f"Images in {split}", *counts)
    moves = split_moves(base, head)
    told = moves.groupby(["before", "after"]).size() if len(moves) else pd.Series(dtype=int)
    note = ", ".join(f"{count:,} {old} → {new}" for (old, new), count in told.items())
    yield Change(
        kind="data", artifact="", metric="num_split_moves", title="Images that moved to another split", base=0,
        head=len(moves), verdict=Verdict.WORSE if len(moves) else Verdict.UNCHANGED, higher_is_better=False, note=note,
    )  # fmt: skip


def split_moves(base: Revision, head: Revision) -> pd.DataFrame:
    """Return the images of both that are in another split now, columns path, before and after.

    An image that was trained on and is now tested makes scores better without a better model.
    """
    pairs = pair_images(base.run.data.images, head.run.data.images)
    before, after = (side.splits.set_index("image_id")["split"] for side in (base, head))
    paths = head.run.data.images.set_index("image_id")["path"]
    moves = pd.DataFrame(
        {
            "path": pairs[HERE].map(paths),
            "before": pairs[THERE].map(before).fillna("none"),
            "after": pairs[HERE].map(after).fillna("none"),
        }
    )
    return moves[moves["before"] != moves["after"]].sort_values("path", ignore_index=True)


def _validation_rows(base: Revision, head: Revision) -> Iterator[Change]:
    """Give what validation counted; fewer findings are better."""
    keys = [*head.validation, *(key for key in base.validation if key not in head.validation)]
    for key in keys:
        if key in ("num_images", "num_boxes"):
            continue  # told by the dataset itself
        before, after = base.validation.get(key), head.validation.get(key)
        yield Change(
            kind="validation", artifact="", metric=key, title=key.removeprefix("num_").replace("_", " "), base=before,
            head=after, higher_is_better=False, verdict=judge(before, after, higher_is_better=False),
        )  # fmt: skip
