"""The Prefect flow ``publish``: the gates, each file, the manifest, the tag.

Prefect's settings come from the environment of whoever imports this; `pipelines.publish` is the command with them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from pipelines.publish_content import Content, make_content
from pipelines.publish_gates import check_gates, find_candidate
from pipelines.publish_params import PublishParams, read_publish_params
from pipelines.publish_registry import check_registry, push_tag, register, tag_of
from plumbline.errors import PlumblineError
from plumbline.published import Manifest, version_key
from plumbline.published_store import Store
from plumbline.published_upload import check_refuses, folder_of, is_published, upload, upload_manifest

Result = TypeVar("Result")
Work = Callable[[], Any]


class _RefusedError(Exception):
    """A step failed, for a reason that the user can mend."""


@dataclass(frozen=True)
class _Request:
    root: Path
    version: str
    targets: tuple[str, ...]
    tell: Callable[[str], None]
    work: Path


@flow(name="publish")
def publish(root: Path, version: str, targets: Sequence[str] = (), push_to: str = "") -> State[None]:
    """Publish the recommended artifacts of the commit that is checked out, and register the version.

    A flow that was killed is run again: what is there is not written again, and never written over.

    Args:
        root: The project's root, absolute; the section publish of its params.yaml says under which name and where to.
        version: ``v1.2.3``.
        targets: Other artifacts than the recommended ones.
        push_to: The git remote that the tag is pushed to; empty: none.
    """
    tell = get_run_logger().info
    try:
        with tempfile.TemporaryDirectory(prefix="plumbline-publish-") as work:
            return Completed(message=_publish(_Request(root, version, tuple(targets), tell, Path(work)), push_to))
    except _RefusedError as error:
        # Returned, not raised: a traceback through Prefect's engine says nothing to who publishes.
        return Failed(message=str(error))


def _publish(request: _Request, push_to: str) -> str:
    params: PublishParams = _step("params", partial(read_publish_params, request.root))
    store = Store(params.destination, request.tell)
    content: Content = _step("check", partial(_check, request, params.model))
    manifest = content.manifest
    where = store.where(folder_of(manifest))
    _step("look", partial(is_published, store, manifest))  # of another content: nothing of this one is written
    # Also of a version that is there: so a file that somebody removed comes back.
    for number, file in enumerate(manifest.files()):
        _step(f"upload {file.path} {file.sha256[:8]}", partial(upload, store, manifest, content.files, file))
        if number == 0:
            _step("conditional write", partial(check_refuses, store, manifest, content.files))
    written = _step("manifest", partial(upload_manifest, store, manifest))
    _step("register", partial(register, request.root, manifest, where))
    if push_to:
        _step("push", partial(push_tag, request.root, manifest, push_to))
    create_markdown_artifact(_page(manifest, where), key="published", description=f"{tag_of(manifest)} at {where}")
    reminder = "" if push_to else f"; `git push origin {tag_of(manifest)}` tells others"
    done = "published" if written else "already published"
    return f"{tag_of(manifest)}: {done} at {where}: {', '.join(manifest.targets)}{reminder}"


def _check(request: _Request, model: str) -> Content:
    version_key(request.version)
    candidate = find_candidate(request.root, request.targets)
    check_registry(request.root, model, request.version, candidate.commit)
    check_gates(candidate, request.tell)
    return make_content(candidate, model, request.version, request.work)


@task(cache_policy=NO_CACHE, persist_result=False)
def _run(work: Work) -> Any:
    try:
        return work()
    except PlumblineError as error:
        return Failed(message=str(error))


def _step(name: str, work: Callable[[], Result]) -> Result:
    """Run a part of the flow as a task of its own.

    Raises:
        _RefusedError: It failed.
    """
    state = _run.with_options(name=name, task_run_name=name)(work, return_state=True)
    if not state.is_completed():
        raise _RefusedError(str(state.message))
    result: Result = state.result()
    return result


def _page(manifest: Manifest, where: str) -> str:
    """Return what Prefect's UI shows of a version."""
    needs = {target: [n for n, of in manifest.recommended.items() if of == target] for target in manifest.targets}
    lines = [
        f"# {tag_of(manifest)}",
        "",
        f"`{where}` from commit `{manifest.git_commit}`",
        "",
        "| target | for | file | bytes | sha256 |",
        "|---|---|---|--:|---|",
    ]
    lines += [
        f"| {name} | {', '.join(needs[name])} | {file.path} | {file.size} | `{file.sha256}` |"
        for name, target in manifest.targets.items()
        for file in target.files
    ]
    return "\n".join(lines) + "\n"
