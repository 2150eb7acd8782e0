"""Which stages of a revision have not been run on what the revision holds: their numbers are another revision's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.graph import ask_dvc
from pipelines.revisions import resolve
from plumbline.review.changes import Change, Verdict

if TYPE_CHECKING:
    from dvc.stage import Stage


def stale_stages(root: Path, rev: str | None) -> list[str]:
    """Name the stages whose dvc.lock entry does not tell of their code, params and inputs; sorted.

    Args:
        root: The project.
        rev: None for the working tree. Of a commit, git's files and dvc.lock are compared, and no data is needed.

    Raises:
        EvaluationError: There is no such commit.
    """
    if rev is None:
        return sorted(ask_dvc(root, "--wait-for-lock", "status"))
    from dvc.repo import Repo

    with Repo.open(str(root), rev=resolve(root, rev)) as repo:
        stages = [stage for stage in repo.index.stages if stage.cmd]
        made = {out.fs_path: out.hash_info for stage in stages for out in stage.outs}
        return sorted(stage.addressing.rpartition(":")[2] for stage in stages if _is_stale(stage, made))


def stale_row(stale: Sequence[str]) -> Change:
    """Make the row by which a gate knows them."""
    return Change(
        kind="validation", artifact="", metric="num_stale_stages", title="number of stages not run on this revision",
        base=None, head=len(stale), higher_is_better=False, verdict=Verdict.WORSE if stale else Verdict.UNCHANGED,
        note=f"run dvc repro and commit: {', '.join(stale)}"[:1000] if stale else "",
    )  # fmt: skip


def _is_stale(stage: Stage, made: dict[str, object]) -> bool:
    if stage.changed_stage() or any(out.status() for out in stage.outs if not out.use_cache):
        return True  # another command; or metrics in git that are not those which the stage wrote
    for dep in stage.deps:
        if dep.fs_path in made:
            # What another stage makes is not there to be hashed: but the lock says what was made, and what was read.
            if dep.hash_info != made[dep.fs_path]:
                return True
        elif not _holds_outputs(dep.fs_path, made) and dep.status():
            return True
    return False


def _holds_outputs(path: str, made: dict[str, object]) -> bool:
    """Whether a folder holds outputs of stages, or lies in one."""
    return any(out.startswith(f"{path}/") or path.startswith(f"{out}/") for out in made)
