"""What has to be so before a commit's artifacts are published; a refusal is one line that says what is not so."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.graph import ask_dvc
from pipelines.review_params import GATES, bootstrap_of, gates_of, review_of
from pipelines.revisions import revision
from pipelines.stale import stale_row
from plumbline.errors import BackendError
from plumbline.files import sha256_of
from plumbline.lineage import ROOMS, dataset_sha256
from plumbline.params import line_of, read_params
from plumbline.published import LABELS, MANIFEST, PublishError
from plumbline.review.comparing import compare
from plumbline.review.gates import judge_gates
from plumbline.runtime.artifact import ARTIFACT_JSON, Artifact, read_artifact
from stages.shape import PARAMS_FILE

REPORT = Path("reports/report/report.json")
ARTIFACTS = Path("models/artifacts")
DATASET = Path("data/dataset")
VALIDATED = Path("data/validated")
SPLITS = Path("data/splits.parquet")


@dataclass(frozen=True)
class Candidate:
    """What shall be published.

    Attributes:
        root: The project.
        commit: What is checked out.
        report: The content of its report.json.
        targets: Names of the artifacts, sorted.
    """

    root: Path
    commit: str
    report: Mapping[str, Any]
    targets: tuple[str, ...]

    def folder(self, target: str) -> Path:
        """Return an artifact's folder."""
        return self.root / ARTIFACTS / target

    def row(self, target: str) -> Mapping[str, Any]:
        """Return an artifact's row of the report.

        Raises:
            PublishError: It has none.
        """
        rows = {row["name"]: row for row in self.report["rows"] if row["name"] != "weights"}
        if target not in rows:
            raise PublishError(
                f"{REPORT}: no artifact {target!r}, expected one of: {', '.join(rows)}; choose one of them"
            )
        return dict(rows[target])


def find_candidate(root: Path, targets: Sequence[str]) -> Candidate:
    """Say what shall be published: the artifacts that the report recommends, or those that are named.

    Raises:
        PublishError: There is no git commit or no report, or it recommends nothing.
    """
    commit = _git(root, "rev-parse", "--verify", "HEAD^{commit}")
    if Path(_git(root, "rev-parse", "--show-toplevel")).resolve() != root.resolve():
        raise PublishError(f"{root}: not the root of its git repository, expected the project's; say it with --root")
    path = root / REPORT
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        recommended = {choice["artifact"] for choice in report["recommended"].values()} - {None}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PublishError(f"{path}: not a report ({error}), expected the line's; run dvc repro and commit") from error
    if not targets and not recommended:
        raise PublishError(f"{path}: recommends no artifact, expected one that keeps the budget; see its reasons there")
    return Candidate(root, commit, report, tuple(sorted(set(targets) or recommended)))


def check_gates(candidate: Candidate, tell: Callable[[str], None]) -> None:
    """Refuse what did not pass.

    Raises:
        PublishError: The first thing that is not so, and what to do.
    """
    for gate in (
        tree_is_clean, stages_are_up_to_date, artifacts_are_accepted, files_are_as_exported, gates_of_params_pass,
    ):  # fmt: skip
        gate(candidate)
    for target in candidate.targets:
        made_at = str(read_artifact(candidate.folder(target), verify=False).lineage.get("git_commit", ""))
        if made_at.endswith("-dirty"):
            tell(f"{target} was exported before its code was committed ({made_at}); DVC finds it to be this commit's")


def tree_is_clean(candidate: Candidate) -> None:
    """Nothing that git knows, and no code that it does not, differs from the commit.

    Raises:
        PublishError: It is not so.
    """
    changed = _git(candidate.root, "status", "--porcelain", "--untracked-files=no").splitlines()
    new = _git(candidate.root, "status", "--porcelain", "--untracked-files=all", "--", *ROOMS).splitlines()
    files = [line.split(maxsplit=1)[1] for line in changed + new]
    if files:
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        raise PublishError(
            f"{candidate.root / files[0]}: changed since commit {candidate.commit[:12]}{more}, expected what is"
            " committed; commit it, or take it back"
        )


def stages_are_up_to_date(candidate: Candidate) -> None:
    """DVC finds no stage to run: what is here is what this commit makes.

    Raises:
        PublishError: It is not so.
    """
    stale = ask_dvc(candidate.root, "--wait-for-lock", "status")
    if stale:
        names = sorted(stale)
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        raise PublishError(
            f"{candidate.root / 'dvc.lock'}: not up to date: {shown}, expected a clean `dvc status`; run dvc repro (or"
            " dvc checkout, where only files are missing) and commit"
        )


def artifacts_are_accepted(candidate: Candidate) -> None:
    """The report, judged on val and on the scored split, accepts every artifact.

    Raises:
        PublishError: It is not so.
    """
    for target in candidate.targets:
        row = candidate.row(target)
        is_quantized = row["precision"] == "int8"
        # int8 was judged on val, with its operators and its speed; a float artifact has only its loss to be judged by.
        if row["accepted" if is_quantized else "keeps_budget"] is not True:
            why = row["accepted_why"] or "its loss is past the budget, or undefined"
            raise PublishError(
                f"{candidate.root / REPORT}: {target} is not accepted ({why}), expected an artifact inside its budget;"
                " publish others with --target NAME, or change what it is made from"
            )


def gates_of_params_pass(candidate: Candidate) -> None:
    """The gates of params.yaml pass; those on a drop or a rise judged the commit when it was merged.

    Raises:
        PublishError: It is not so.
    """
    path = candidate.root / PARAMS_FILE
    values = read_params(path)
    gates = gates_of(path, values)
    if not gates:
        return
    settings, params = bootstrap_of(path, values), review_of(path, values)
    with revision(candidate.root, None) as here:
        # Held against itself: every number is there, and none has moved.
        changes, _, _ = compare(here, here, settings, params.latency_noise, lambda _: None)
    results = judge_gates(gates, [*changes, stale_row([])])  # `stages_are_up_to_date` has found none
    failed = [gate for gate in results if not gate.passed]
    if failed:
        raise PublishError(
            f"{path}:{line_of(path, (GATES, failed[0].name))}: gate {failed[0].name} fails: {failed[0].why}, expected"
            f" {failed[0].rule}; make what passes, or correct the gate"
        )


def files_are_as_exported(candidate: Candidate) -> None:
    """Every artifact is as it was exported, from the labels that are here, and the report is about it.

    Raises:
        PublishError: It is not so.
    """
    data, splits = dataset_sha256(candidate.root / VALIDATED), sha256_of(candidate.root / SPLITS)
    for target in candidate.targets:
        folder = candidate.folder(target)
        artifact = _read(folder)
        files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        extra = sorted(files - set(artifact.files) - {ARTIFACT_JSON}) or sorted(files & {MANIFEST, LABELS})
        if extra:
            raise PublishError(
                f"{folder / extra[0]}: no file of the artifact, expected those in its {ARTIFACT_JSON}; remove it"
            )
        of = artifact.lineage
        if candidate.report["lineage"].get(target) != of:
            raise PublishError(
                f"{folder}: not what {REPORT} is about, expected the lineage there; run dvc repro and commit"
            )
        if (of.get("dataset_sha256"), of.get("splits_sha256")) != (data, splits):
            raise PublishError(
                f"{folder}: made from other labels or splits than {VALIDATED} and {SPLITS}; run dvc repro and commit"
            )


def _read(folder: Path) -> Artifact:
    try:
        artifact = read_artifact(folder)
    except BackendError as error:
        raise PublishError(str(error)) from error
    if artifact.name != folder.name:
        raise PublishError(
            f"{folder}: holds the artifact {artifact.name!r}, expected its own; run dvc repro and commit"
        )
    return artifact


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    except OSError as error:
        raise PublishError(f"git cannot be run ({error}), expected it to name the commit; install it") from error
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no output"])[0].removeprefix("fatal: ")
        raise PublishError(f"{root}: `git {arguments[0]}` failed: {said}; run from the project's root, in a commit")
    return done.stdout.rstrip("\n")
