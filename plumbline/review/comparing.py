"""Hold two revisions against each other: every row of the comparison, from what both lines wrote."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import pandas as pd

from plumbline.errors import EvaluationError
from plumbline.report_markdown import percent
from plumbline.report_words import ReportWords
from plumbline.review.changes import Change, Kind, Verdict, judge
from plumbline.review.data_changes import data_rows
from plumbline.review.device_changes import device_rows
from plumbline.review.differences import Difference, Pair, slice_key
from plumbline.review.param_changes import param_rows
from plumbline.review.revision import WEIGHTS, Revision
from plumbline.score_comparison import HERE, ScoredRun, as_in, count_other_labels, pair_images
from plumbline.scores import BootstrapSettings
from plumbline.slices import ALL, BOX_SIZE, image_slices
from plumbline.tasks import task_module

# Metrics of metrics.json that are no scores.
_COUNTS = ("num_boxes", "num_detections", "num_images", "confidence_threshold", "best_f1_confidence")
_LOWER_IS_BETTER = ("calibration_error", "log_loss")
_ROUNDING = 1e-9  # a sum in another order
_OTHER_IMAGES = "other images or labels in the base"
_SIZES = ("small", "medium", "large")


def compare(
    base: Revision, head: Revision, settings: BootstrapSettings, latency_noise: float, tell: Callable[[str], None]
) -> tuple[list[Change], list[str], int]:
    """Make every row, sorted by kind.

    Args:
        base: What the change is from.
        head: What it is to; its labels count.
        settings: Of the bootstrap.
        latency_noise: Share by which two measurements of the same thing may differ.
        tell: Called with a line before what takes long.

    Returns:
        The rows; sentences that must be known to read them; how many images both scored.

    Raises:
        EvaluationError: The tasks differ, or predictions are broken.
    """
    if base.run.task != head.run.task:
        raise EvaluationError(
            f"{base.name}: its task is {base.run.task}, expected {head.run.task} as in {head.name}; compare revisions"
            " of one task"
        )
    pairs = pair_images(base.run.images, head.run.images)
    rows = [*score_rows(base, head, pairs, settings, tell), *device_rows(base, head, latency_noise)]
    rows += [*data_rows(base, head), *param_rows(base.params, head.params)]
    return rows, [*_notes(base, head, pairs), *_chance_note(rows, settings.level)], len(pairs)


def score_rows(
    base: Revision, head: Revision, pairs: pd.DataFrame, settings: BootstrapSettings, tell: Callable[[str], None]
) -> Iterator[Change]:
    """Make the rows of the scores: of all artifacts of both, those with an interval first."""
    names = [*head.scored, *(name for name in base.scored if name not in head.scored)]
    is_whole = _is_whole(base, head, pairs)
    is_comparable = len(pairs) > 0 and set(base.run.data.class_names) == set(head.run.data.class_names)
    for name in names:
        found: list[Difference] = []
        if is_comparable and name in head.scored and name in base.scored:
            pair = pair_of(base, head, name, pairs)
            if not (is_whole and _is_same(pair)):  # metrics.json says it all
                tell(f"{name}: {settings.samples} samples of {len(pair.images)} images")
                found = _differences(pair, head, settings)
        yield from _rows_of(base, head, name, found, is_whole=is_whole)


def shown_artifact(base: Revision, head: Revision) -> str:
    """Return the artifact of the pictures, one of both: the smallest accepted int8 one, or what comes next best."""
    rows = {name: one.row for name, one in head.scored.items() if name != WEIGHTS and name in base.scored}
    int8 = [name for name, row in rows.items() if row.get("precision") == "int8"]
    if int8:
        return min(int8, key=lambda name: (rows[name].get("accepted") is not True, rows[name]["size_bytes"], name))
    return next(iter(rows), WEIGHTS)


def _is_whole(base: Revision, head: Revision, pairs: pd.DataFrame) -> bool:
    """Whether both were scored on the very same images and labels, so that metrics.json says what the rows say."""
    same_images = len(pairs) == len(base.run.images) == len(head.run.images)
    return same_images and not count_other_labels(base.run.data.annotations, head.run.data.annotations, pairs)


def _differences(pair: Pair, head: Revision, settings: BootstrapSettings) -> list[Difference]:
    room = task_module(head.run.task, "reviewing")
    evaluate = head.params.get("evaluate", {})
    columns = [column for column in evaluate.get("slices", ()) if column != BOX_SIZE and column in pair.images.columns]
    slices = image_slices(pair.images, columns, int(evaluate.get("slice_bins", 3)))
    return [*room.overall(pair, settings), *room.details(pair, slices, settings)]


def _is_same(pair: Pair) -> bool:
    return pair.base_threshold == pair.head_threshold and pair.base.equals(pair.head)


def pair_of(base: Revision, head: Revision, name: str, pairs: pd.DataFrame) -> Pair:
    """Put an artifact's predictions of both revisions side by side, on the images that both scored.

    Args:
        base: The base.
        head: Its labels, image_ids and class_ids count.
        name: An artifact of both.
        pairs: From `pair_images` of their images.
    """
    run: ScoredRun = head.run
    images = run.images[run.images["image_id"].isin(pairs[HERE])].sort_values("image_id", ignore_index=True)
    ours, theirs = run.predictions[name], base.run.predictions[name]
    return Pair(
        truth=task_module(run.task, "scoring").truth_of(run.data, images),
        images=images,
        class_names=run.data.class_names,
        base=as_in(theirs, pairs, base.run.data.class_names, run.data.class_names),
        head=ours[ours["image_id"].isin(images["image_id"])].reset_index(drop=True),
        base_threshold=base.threshold[name],
        head_threshold=head.threshold[name],
    )


def _rows_of(
    base: Revision, head: Revision, name: str, found: Sequence[Difference], *, is_whole: bool
) -> Iterator[Change]:
    """Give the rows with intervals, and then what else either metrics.json has."""
    words = task_module(head.run.task, "reporting").WORDS
    before, after = (
        {**side.scored[name].metrics, **_slice_scores(side, name)} if name in side.scored else {}
        for side in (base, head)
    )
    why = head.scored[name].undefined if name in head.scored else {}
    for each in found:
        yield _with_interval(name, each, None if is_whole else after.get(each.metric))
    told = {each.metric for each in found}
    for metric in [*after, *(metric for metric in before if metric not in after)]:
        if metric not in told and metric not in _COUNTS and not metric.startswith("num_"):
            beside = "" if metric not in before else "no interval" if is_whole else _OTHER_IMAGES
            note = str(why.get(metric, "")) if metric not in after else beside
            values = before.get(metric), after.get(metric)
            yield _without_interval(name, metric, words, values, note, is_whole=is_whole)
    for metric in why:
        if metric not in before and metric not in after:
            yield _without_interval(name, metric, words, (None, None), str(why[metric]), is_whole=is_whole)


def _slice_scores(side: Revision, name: str) -> dict[str, float]:
    """Return the headline score of each slice of slices.csv, but of sizes, which metrics.json has."""
    table = side.scored[name].tables.get("slices")
    metric = task_module(side.run.task, "reporting").WORDS.headline.metric
    if table is None or metric not in table:
        return {}
    rows = table[(table["column"] != BOX_SIZE) & table[metric].notna() & ~table["slice"].str.startswith(f"{ALL} (")]
    return {slice_key(row["column"], row["slice"], metric): float(row[metric]) for _, row in rows.iterrows()}


def _with_interval(name: str, each: Difference, whole: float | None) -> Change:
    found = each.interval
    is_known = not math.isnan(found.difference_low + found.difference_high)
    low, high = (found.difference_low, found.difference_high) if is_known else (None, None)
    base, head = found.value - found.difference, found.value
    return Change(
        kind=each.kind, artifact=name, metric=each.metric, title=each.title, base=base, head=head, low=low, high=high,
        whole=whole, higher_is_better=each.higher_is_better,
        verdict=judge(base, head, low=low, high=high, higher_is_better=each.higher_is_better),
    )  # fmt: skip


def _without_interval(
    name: str, metric: str, words: ReportWords, values: tuple[float | None, float | None], note: str, *, is_whole: bool
) -> Change:
    """Give a row whose noise is not known: it may have changed, but neither for the better nor for the worse.

    Both numbers are those of metrics.json: where that is not of the same images and labels, they only stand beside
    each other.
    """
    base, head = values
    lower = metric in _LOWER_IS_BETTER
    verdict = judge(base, head, higher_is_better=None, noise=_ROUNDING)
    if not is_whole and base is not None and head is not None:
        verdict = Verdict.OTHER_TEST_SET
    return Change(
        kind=_kind_of(metric), artifact=name, metric=metric, title=_title(metric, words), base=base, head=head,
        higher_is_better=not lower, verdict=verdict, note=note,
    )  # fmt: skip


def _title(metric: str, words: ReportWords) -> str:
    """Name a metric as the rows with intervals do, where it is one of these."""
    end = f"_{words.class_scores[0].metric}"
    if metric.startswith("class_") and metric.endswith(end):
        return metric.removeprefix("class_").removesuffix(end)
    return words.score_of(metric).title


def _kind_of(metric: str) -> Kind:
    if metric.startswith(("class_", "slice_")):
        return "class" if metric.startswith("class_") else "slice"
    return "size" if metric.rpartition("_")[2] in _SIZES else "score"


def _chance_note(rows: Sequence[Change], level: float) -> list[str]:
    """Say how many of many intervals exclude 0 where nothing changed: they are not corrected for being many."""
    count = sum(row.low is not None and (row.low, row.high) != (0, 0) for row in rows)
    expected = round(count * (1 - level))
    if expected < 1:
        return []
    return [
        f"{count} differences have a {percent(level)} interval: where nothing changed, about {expected} of them would"
        " exclude 0 by chance; the overall scores say more than one class or slice."
    ]


def _notes(base: Revision, head: Revision, pairs: pd.DataFrame) -> list[str]:
    """Say what must be known to read the numbers."""
    if not base.scored:
        return [f"{base.name} has no results of the line: all of {head.name} is new."]
    said = []
    if not len(pairs):
        said.append(
            "No image was scored in both: scores stand beside each other, and no drop or rise of one is judged."
        )
    only_base, only_head = len(base.run.images) - len(pairs), len(head.run.images) - len(pairs)
    for count, one, other in ((only_base, base, head), (only_head, head, base)):
        if count and len(pairs):
            said.append(f"{count:,} scored images of {one.name} are not in {other.name}'s; differences leave them out.")
    if other_labels := count_other_labels(base.run.data.annotations, head.run.data.annotations, pairs):
        said.append(f"{other_labels:,} scored images have other labels in {base.name}; {head.name}'s count for both.")
    if set(base.run.data.class_names) != set(head.run.data.class_names):
        said.append("The classes are others: scores stand beside each other without an interval.")
    return said
