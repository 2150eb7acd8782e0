"""The Prefect flow over dvc.yaml: every stage a task, its output in the log, the report an artifact.

Prefect's settings come from the environment of whoever imports this; `pipelines.flow` is the command that makes them.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from pipelines.graph import Graph, ask_dvc, changed_stages, read_graph
from pipelines.run_stage import Outcome, StageError, run_stage

REPORT = Path("reports/report/report.md")
EMBED_BYTES = 3_000_000  # of images, in all, within the report's artifact
CACHED = "Cached"
IMAGE_LINK = re.compile(r"!\[(?P<alt>[^\]]*)\]\((?P<path>[^)\s:]+\.(?:png|jpe?g))\)")  # no colon: not a URL


@task(cache_policy=NO_CACHE, persist_result=False)
def stage(root: Path, name: str, unchanged: bool) -> State[None]:
    """Run one stage; end as Completed, as Completed with the name Cached, or as Failed with its last lines.

    Args:
        root: The DVC project's root.
        name: The stage as DVC addresses it.
        unchanged: DVC has already said that neither it nor anything it needs has changed.
    """
    if unchanged:
        return Completed(name=CACHED, message="nothing it depends on has changed")
    log = get_run_logger()
    try:
        outcome = run_stage(root, name, log.info)
    except StageError as error:
        # Returned, not raised: a traceback through Prefect's engine says nothing to who wrote the stage.
        return Failed(message="\n".join([str(error), *error.tail]))
    if outcome is Outcome.CACHED:
        return Completed(name=CACHED, message="DVC found it unchanged, or had its outputs in the run-cache")
    return Completed()


@flow(name="plumbline")
def line(root: Path) -> State[None]:
    """Run every stage of a project's dvc.yaml that is not up to date.

    A failed stage stops what depends on it and nothing else; the flow then fails and names it.

    Args:
        root: The DVC project's root.

    Raises:
        GraphError: dvc.yaml cannot be read.
    """
    graph = read_graph(root)
    changed = changed_stages(root)
    get_run_logger().info("%d stages, changed: %s", len(graph.stages), ", ".join(sorted(changed)) or "none")
    # One stage at a time, in this thread: a benchmark must not share the CPU with anything. To run independent
    # stages at once, submit the tasks (the edges are in wait_for already) with a limit per resource, and end the
    # running groups from here: Ctrl-C and SIGTERM do not reach a task in a thread.
    states: dict[str, State[Any]] = {}
    for each in graph.stages:
        needed = [states[name] for name in each.needs]
        unchanged = each.name not in changed and all(state.name == CACHED for state in needed)
        named = stage.with_options(name=each.name, task_run_name=each.name, description=each.desc or None)
        states[each.name] = named(root, each.name, unchanged, wait_for=needed, return_state=True)
    end = verdict(graph, states)
    if end.is_completed():  # a half-run line would mix new numbers with old ones
        keep_report(root)
        keep_metrics(root)
    return end


def verdict(graph: Graph, states: Mapping[str, State[Any]]) -> State[None]:
    """Say in one state how all stages ended; of a failure, first one line, then the last lines of what failed."""
    failed = [name for name in graph.names if states[name].is_failed()]
    if not failed:
        cached = sum(states[name].name == CACHED for name in graph.names)
        return Completed(message=f"{len(graph.names) - cached} stages ran, {cached} were up to date")
    not_run = [name for name in graph.names if not (states[name].is_completed() or states[name].is_failed())]
    told = [str(states[name].message).splitlines() for name in failed]
    headline = "; ".join(lines[0] for lines in told)
    if not_run:
        headline += f" (so not run: {', '.join(not_run)})"
    tails = [f"{name}: {text}" for name, lines in zip(failed, told, strict=True) for text in lines[1:]]
    return Failed(message="\n".join([headline, *tails]))


def keep_report(root: Path) -> None:
    """Store the report, where there is one, as the artifact ``report``."""
    path = root / REPORT
    if path.is_file():
        text = embed_images(path.read_text(encoding="utf-8"), path.parent)
        create_markdown_artifact(text, key="report", description=f"`{REPORT}` as this run left it")


def keep_metrics(root: Path) -> None:
    """Store every number that ``dvc metrics show`` knows as the artifact ``metrics``."""
    rows = metric_rows(ask_dvc(root, "metrics", "show"))
    if rows:
        create_table_artifact(rows, key="metrics", description="`dvc metrics show`")


def embed_images(markdown: str, folder: Path, limit_bytes: int = EMBED_BYTES) -> str:
    """Put the PNG and JPEG files that a page links to into the page, as ``data:`` URIs.

    Prefect stores the text alone, and its UI shows an image's link as it is (``<img src=...>``), so a relative one
    would show nothing. An image that is missing or does not fit any more becomes a note.

    Args:
        markdown: The page.
        folder: What its links are relative to.
        limit_bytes: Of all image files together; the first ones that fit are taken.
    """
    left = limit_bytes

    def embedded(link: re.Match[str]) -> str:
        nonlocal left
        path = folder / link["path"]
        if not path.is_file() or path.stat().st_size > left:
            return f"*(image {link['path']}: {link['alt']})*"
        content = path.read_bytes()
        left -= len(content)
        kind = "png" if path.suffix == ".png" else "jpeg"
        return f"![{link['alt']}](data:image/{kind};base64,{base64.b64encode(content).decode('ascii')})"

    return IMAGE_LINK.sub(embedded, markdown)


def metric_rows(shown: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Turn the answer of ``dvc metrics show --json`` into rows of file, metric and value.

    >>> metric_rows({"": {"data": {"b.json": {"data": {"map50": 0.9, "ms": {"p50": 2}}}}}})
    [{'file': 'b.json', 'metric': 'map50', 'value': 0.9}, {'file': 'b.json', 'metric': 'ms.p50', 'value': 2}]
    """
    files = shown.get("", {}).get("data", {})
    return [
        {"file": file, "metric": metric, "value": value}
        for file in sorted(files)
        for metric, value in _flat(files[file].get("data", {}), "")
    ]


def _flat(values: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(values, dict):
        for key, value in values.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(values, float) and not math.isfinite(values):
        yield prefix, str(values)  # the API takes strict JSON
    else:
        yield prefix, values
