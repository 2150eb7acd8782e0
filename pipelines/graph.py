"""The graph of stages as DVC reads it from dvc.yaml, and which of them have changed.

No stage is named here: a stage added to dvc.yaml is in the flow at once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from plumbline.errors import PlumblineError

ALL = -1  # of a resource
RESOURCES = ("cpu", "gpu")


class GraphError(PlumblineError):
    """dvc.yaml cannot be read as a graph of stages."""


@dataclass(frozen=True)
class Stage:
    """One stage of dvc.yaml; an entry of a ``foreach`` or ``matrix`` is a stage of its own.

    Attributes:
        name: As ``dvc repro`` takes it in the project's root: ``train``, ``export@onnx-int8``,
            ``other/dvc.yaml:train``, ``data/photos.dvc``.
        needs: The stages whose outputs it reads, in the graph's order.
        desc: Its description in dvc.yaml, or "".
        resources: What of each resource of its machine it uses while it runs, from its ``meta`` in dvc.yaml; `ALL` of
            one is for stages that nothing may run beside.
        pool: The Prefect work pool whose workers run it, from its ``meta``, or "" for this machine.
    """

    name: str
    needs: tuple[str, ...]
    desc: str
    resources: Mapping[str, int] = field(default_factory=lambda: {"cpu": 1})
    pool: str = ""


@dataclass(frozen=True)
class Graph:
    """All stages, each after everything that it needs; apart from that, in dvc.yaml's order.

    Attributes:
        stages: In that order.
        outs: Absolute paths of what the stages write.
    """

    stages: tuple[Stage, ...]
    outs: tuple[Path, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The stages' names, in the order in which they may run one after the other."""
        return tuple(stage.name for stage in self.stages)


def in_order(needs: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """Return the names so that each stands after what it needs and, where that leaves a choice, as they came.

    Raises:
        GraphError: A name needs itself through others, or needs one that is not there.

    >>> in_order({"report": ["b", "a"], "b": ["data"], "a": ["data"], "data": []})
    ('data', 'b', 'a', 'report')
    """
    left = {name: set(its) for name, its in needs.items()}
    done: list[str] = []
    while left:
        # From the start each time, so that the earliest declared comes first. Graphs have tens of stages.
        ready = next((name for name, its in left.items() if its.issubset(done)), None)
        if ready is None:
            raise GraphError(f"dvc.yaml: stages wait for each other: {', '.join(left)}; cut one of their deps")
        done.append(ready)
        del left[ready]
    return tuple(done)


def graph_of(
    needs: Mapping[str, Iterable[str]], descs: Mapping[str, str], metas: Mapping[str, Any] | None = None
) -> Graph:
    """Make a graph from what each stage needs, its description and its ``meta`` (see `in_order` for the order).

    Raises:
        GraphError: As `in_order`, or as `read_meta`.
    """
    order = in_order(needs)
    stages = []
    for name in order:
        resources, pool = read_meta(name, (metas or {}).get(name))
        stages.append(Stage(name, tuple(sorted(needs[name], key=order.index)), descs.get(name, ""), resources, pool))
    return Graph(tuple(stages))


def read_meta(name: str, meta: Any) -> tuple[dict[str, int], str]:
    """Read what a stage's ``meta`` says of where and with what it runs; other keys are the user's own.

    Args:
        name: The stage.
        meta: As in dvc.yaml: ``{cpu: 2, gpu: 1, pool: gpu}``, ``{cpu: all}``, or None.

    Raises:
        GraphError: A value is no number of a resource, or no name of a pool.

    >>> read_meta("train", {"gpu": 1, "pool": "gpu"})
    ({'cpu': 1, 'gpu': 1}, 'gpu')
    >>> read_meta("benchmark", {"cpu": "all"}), read_meta("split", None)
    (({'cpu': -1}, ''), ({'cpu': 1}, ''))
    """
    if not isinstance(meta, Mapping):
        meta = {}
    resources = {}
    for resource in RESOURCES:
        value = meta.get(resource, 1 if resource == "cpu" else 0)
        is_number = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        if value != "all" and not is_number:
            raise GraphError(
                f"dvc.yaml: stage {name!r}: meta.{resource} is {value!r}, expected a whole number or all; correct it"
            )
        if value:
            resources[resource] = ALL if value == "all" else value
    pool = meta.get("pool", "")
    if not isinstance(pool, str):
        raise GraphError(f"dvc.yaml: stage {name!r}: meta.pool is {pool!r}, expected a work pool's name; correct it")
    return resources, pool


def read_graph(root: Path) -> Graph:
    """Read every stage that ``dvc repro`` knows in a project; takes half a second and runs nothing.

    A ``.dvc`` file is a stage where a stage of a dvc.yaml reads what it tracks. A frozen stage needs nothing, as in
    ``dvc repro``.

    Raises:
        GraphError: `root` is not the root of a DVC project, or DVC refuses its dvc.yaml.
    """
    return _read(root, with_status=False)[0]


def read_graph_and_changes(root: Path) -> tuple[Graph, frozenset[str]]:
    """Read the graph, and ask DVC once for all which stages' dependencies, outputs, params or command have changed.

    What only follows from another stage's run is not among them: a stage can be run again when neither it nor
    anything that it needs is.

    Raises:
        GraphError: As `read_graph`.
    """
    return _read(root, with_status=True)


def _read(root: Path, with_status: bool) -> tuple[Graph, frozenset[str]]:
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.stage import PipelineStage

    try:
        # What `dvc --wait-for-lock` sets: a stage that another process hashes holds the lock for minutes.
        with Repo(os.fspath(root), _wait_for_lock=True) as repo:
            edges = repo.index.graph
            # The order of files is the disk's, of stages within a file the file's: the sort is stable.
            nodes = sorted(edges, key=lambda node: node.path_in_repo)
            names = {node: _name(node.path_in_repo, getattr(node, "name", "")) for node in nodes}
            needs = {
                names[node]: () if node.frozen else tuple(names[other] for other in edges.successors(node))
                for node in nodes
                if isinstance(node, PipelineStage) or any(True for _ in edges.predecessors(node))
            }
            descs = {names[node]: node.desc or "" for node in nodes}
            metas = {names[node]: node.meta for node in nodes}
            outs = sorted(Path(out.fs_path) for node in nodes for out in node.outs if out.is_in_repo)
            graph = replace(graph_of(needs, descs, metas), outs=tuple(outs))
            changed: frozenset[str] = frozenset()
            if with_status:
                with repo.lock:
                    changed = frozenset(names[node] for node in nodes if names[node] in needs and node.status())
    except DvcException as error:
        raise GraphError(f"{root / 'dvc.yaml'}: {_reason(error)}; mend it, `dvc dag` shows the same") from error
    return graph, changed


def ask_dvc(root: Path, *command: str) -> dict[str, Any]:
    """Return the JSON that a DVC command prints with ``--json``.

    Raises:
        GraphError: The command fails.
    """
    answer = subprocess.run(
        # `dvc` beside this interpreter, whatever PATH says.
        [sys.executable, "-m", "dvc", *command, "--json"],
        cwd=root,
        env={**os.environ, "DVC_NO_ANALYTICS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        last = (answer.stderr.strip() or "no output").splitlines()[-1]
        said = last.removeprefix("ERROR: ")
        raise GraphError(f"{root}: `dvc {' '.join(command)}` failed: {said}; run it to see more")
    return json.loads(answer.stdout)


def _name(path_in_repo: str, name: str) -> str:
    """Return how ``dvc`` addresses a stage in the project's root (its own `addressing` looks from the current folder).

    >>> _name("dvc.yaml", "train"), _name("a/dvc.yaml", "train"), _name("data/photos.dvc", "")
    ('train', 'a/dvc.yaml:train', 'data/photos.dvc')
    """
    if not name:
        return path_in_repo
    return name if path_in_repo == "dvc.yaml" else f"{path_in_repo}:{name}"


def _reason(error: BaseException) -> str:
    """Join an exception's message and its causes' into one line."""
    parts: list[str] = []
    at: BaseException | None = error
    while at is not None:
        text = " ".join(str(at).split())
        if text and text not in parts:
            parts.append(text)
        at = at.__cause__
    return ": ".join(parts)
