"""Find the fastest int8 file inside an accuracy budget.

The order is that in which a step costs speed: ranges and granularity of the weights first, for nothing; then which
operators; then the blocks that int8 hurts most, left in float, as few as do. Each file is scored on val as it would
run. The first one inside the budget ends the search.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from plumbline.errors import BackendError
from plumbline.quantization.recipes import Block, Quantizer, Recipe, Written


@dataclass(frozen=True)
class Drop:
    """What int8 costs on val, in points (hundredths) of the task's metric.

    Attributes:
        value: The metric of the file, 0..1.
        drop: That of fp32 minus that of the file; below 0 where the file is better.
        upper: Upper end of its paired interval.
    """

    value: float
    drop: float
    upper: float


@dataclass(frozen=True)
class Limits:
    """When a search ends.

    Attributes:
        max_drop: Points.
        max_drop_upper: Points: of the upper end of the interval.
        max_float_share: Of the multiply-adds, 0..1: what leaves more of them in float is not called int8.
        max_trials: Files to score at the most.
        first_method: Tried first; the backend's own first is what does best as a rule.
    """

    max_drop: float
    max_drop_upper: float
    max_float_share: float
    max_trials: int
    first_method: str | None = None


@dataclass(frozen=True)
class Trial:
    """One file of a search.

    Attributes:
        number: From 1.
        step: ``method``, ``operators``, ``blocks``, or ``aware`` (after a fine-tune).
        recipe: How it was made.
        int8_share: Of the multiply-adds, as far as blocks tell; 0..1.
        written: What the backend says of it.
        drop: On val.
        reason: Why it is not inside the budget, in words for a person; empty where it is.
        folder: Its files.
    """

    number: int
    step: str
    recipe: Recipe
    int8_share: float
    written: Written
    drop: Drop
    reason: str
    folder: Path

    @property
    def inside(self) -> bool:
        """Whether it keeps the budget and is int8 in fact."""
        return not self.reason


@dataclass(frozen=True)
class Outcome:
    """How a search ended.

    Attributes:
        best: The fastest file inside the budget; where none is, the one with the smallest drop that is int8 in fact.
        trials: All, in order.
    """

    best: Trial
    trials: tuple[Trial, ...]


Score = Callable[[Path], Drop]
# A recipe -> names of blocks, the one that int8 hurts most first.
Rank = Callable[[Recipe], tuple[str, ...]]


def search(
    quantizer: Quantizer,
    score: Score,
    rank: Rank,
    limits: Limits,
    *,
    work: Path,
    tell: Callable[[str], None],
) -> Outcome:
    """Write and score files until one is inside the budget, or there is nothing left to try.

    Args:
        quantizer: Of the backend.
        score: Folder with an engine's files -> what they cost on val.
        rank: Orders the blocks; asked once, and only where blocks are needed.
        limits: See `Limits`.
        work: Folder for the files of all trials.
        tell: Gets a line for each trial.

    Raises:
        BackendError: The first method is unknown, or the backend cannot write a file.
    """
    return _Search(quantizer, score, rank, limits, work, tell).run()


class _Search:
    """The state of one search: what was tried."""

    def __init__(  # noqa: PLR0917
        self,
        quantizer: Quantizer,
        score: Score,
        rank: Rank,
        limits: Limits,
        work: Path,
        tell: Callable[[str], None],
    ) -> None:
        self.quantizer, self.score, self.rank, self.limits = quantizer, score, rank, limits
        self.work, self.tell = work, tell
        self.trials: list[Trial] = []

    def run(self) -> Outcome:
        operators = self.quantizer.operators
        for method in _in_order(self.quantizer.methods, self.limits.first_method):
            if self._tried("method", Recipe(method, operators[0])):
                return self._outcome()
        for narrower in operators[1:]:
            if self._tried("operators", replace(self._best().recipe, operators=narrower)):
                return self._outcome()
        if self.quantizer.blocks and self._left():
            self._bisect(self._best().recipe)
        return self._outcome()

    def _bisect(self, base: Recipe) -> None:
        """Leave the worst blocks in float: as few as are enough, if any number that is allowed is."""
        ranking = self.rank(base)
        enough = most_in_float(ranking, self.quantizer.blocks, self.limits.max_float_share)
        if not enough or not self._tried("blocks", _with_float(base, ranking[:enough], self.quantizer.blocks)):
            return
        too_few = 0
        while enough - too_few > 1 and self._left():
            count = (too_few + enough) // 2
            if self._tried("blocks", _with_float(base, ranking[:count], self.quantizer.blocks)):
                enough = count
            else:
                too_few = count

    def _left(self) -> bool:
        return len(self.trials) < self.limits.max_trials

    def _tried(self, step: str, recipe: Recipe) -> bool:
        """Write and score one file; False where it is outside, or where no trial is left."""
        if not self._left():
            return False
        number = len(self.trials) + 1
        trial = try_recipe(
            self.quantizer,
            recipe,
            self.score,
            self.limits,
            folder=self.work / f"trial{number}",
            number=number,
            step=step,
        )
        self.trials.append(trial)
        self.tell(line_of(trial))
        return trial.inside

    def _best(self) -> Trial:
        return best_of(self.trials, self.limits)

    def _outcome(self) -> Outcome:
        inside = [trial for trial in self.trials if trial.inside]
        fastest = min(inside, key=lambda trial: (len(trial.recipe.float_blocks), trial.number), default=None)
        return Outcome(fastest or self._best(), tuple(self.trials))


def try_recipe(
    quantizer: Quantizer, recipe: Recipe, score: Score, limits: Limits, *, folder: Path, number: int, step: str
) -> Trial:
    """Write one file into a new folder, score it, and judge it."""
    folder.mkdir(parents=True)
    written = quantizer.write(folder, recipe)
    drop = score(folder)
    share = int8_share(quantizer.blocks, recipe)
    return Trial(number, step, recipe, share, written, drop, why_outside(drop, written, limits), folder)


def _in_order(methods: tuple[str, ...], first: str | None) -> tuple[str, ...]:
    """Return the methods with `first` at the front.

    >>> _in_order(("minmax", "mse"), "mse")
    ('mse', 'minmax')
    """
    if first is None:
        return methods
    if first not in methods:
        raise BackendError(
            f"quantize.first_method is {first!r}, expected auto or one of: {', '.join(methods)}; change it in"
            " params.yaml"
        )
    return (first, *(method for method in methods if method != first))


def most_in_float(ranking: tuple[str, ...], blocks: tuple[Block, ...], max_share: float) -> int:
    """Return how many of the first blocks may stay in float together.

    >>> most_in_float(("b", "a", "c"), (Block("a", 0.3), Block("b", 0.1), Block("c", 0.6)), 0.5)
    2
    """
    shares = {block.name: block.share for block in blocks}
    total = 0.0
    for count, name in enumerate(ranking):
        total += shares[name]
        if total > max_share:
            return count
    return len(ranking)


def _with_float(base: Recipe, names: tuple[str, ...], blocks: tuple[Block, ...]) -> Recipe:
    """Return the recipe with these blocks in float, in the order of the network."""
    return replace(base, float_blocks=tuple(block.name for block in blocks if block.name in names))


def int8_share(blocks: tuple[Block, ...], recipe: Recipe) -> float:
    """Return the share of multiply-adds that a recipe leaves to int8, 0..1.

    >>> int8_share((Block("a", 0.25), Block("b", 0.75)), Recipe("minmax", "all", ("a",)))
    0.75
    """
    return 1.0 - sum(block.share for block in blocks if block.name in recipe.float_blocks)


def why_outside(drop: Drop, written: Written, limits: Limits) -> str:
    """Say why a file is no int8 file inside the budget; an empty text where it is one."""
    if _few_int8(written, limits):
        return f"only {written.num_int8} of {written.num_convolutions} convolutions run in int8"
    if not drop.drop <= limits.max_drop:
        return f"{drop.drop:.2f} points lost on val, more than {limits.max_drop:g}"
    if not drop.upper <= limits.max_drop_upper:
        return (
            f"up to {drop.upper:.2f} points may be lost (upper end of the interval on val), more than"
            f" {limits.max_drop_upper:g}"
        )
    return ""


def best_of(trials: Sequence[Trial], limits: Limits) -> Trial:
    """Return the trial with the smallest drop among those that are int8 in fact; of equal ones, the first."""
    return min(trials, key=lambda trial: (_few_int8(trial.written, limits), trial.drop.drop, trial.number))


def _few_int8(written: Written, limits: Limits) -> bool:
    return written.num_int8 < (1 - limits.max_float_share) * written.num_convolutions or not written.num_int8


def line_of(trial: Trial) -> str:
    """Return the line that tells a person of a trial."""
    recipe = trial.recipe
    blocks = f", {len(recipe.float_blocks)} blocks in float" if recipe.float_blocks else ""
    fine_tuned = "after a fine-tune, " if trial.step == "aware" else ""
    # 0.0 minus: no minus zero.
    found = f"{trial.drop.value:.4f}, {0.0 - trial.drop.drop:+.2f} points (at worst {0.0 - trial.drop.upper:+.2f})"
    judged = "inside the budget" if trial.inside else f"outside: {trial.reason}"
    return f"trial {trial.number}: {fine_tuned}{recipe.method}, {recipe.operators}{blocks}: {found}, {judged}"
