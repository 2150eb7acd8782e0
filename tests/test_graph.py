"""dvc.yaml lists everything that can change a stage's result: DVC only sees what is listed."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import shutil
import tempfile
from functools import cache
from pathlib import Path

import pytest
from dvc.repo import Repo

from plumbline.backends import TARGET_BACKENDS
from plumbline.params import read_params
from plumbline.tasks import TASKS

ROOT = Path(__file__).parent.parent
ROOMS = ("plumbline", "stages", "pipelines")
# These hold a docstring and a version, which test_exempt_modules_hold_nothing checks.
EXEMPT = {
    "plumbline/__init__.py",
    "plumbline/classify/__init__.py",
    "plumbline/detect/__init__.py",
    "plumbline/runtime/__init__.py",
    "stages/__init__.py",
}
# Stages that read the keys of a section, and none of its values.
NAMES_ONLY = {"report": {"targets"}}
# How fast a stage does its work changes nothing that it makes.
CHANGES_NOTHING = {"ingest": {"scan"}}
# Written for a person to look at while a stage runs; it holds times, so that no output of DVC could be compared.
NO_OUTPUT = {"reports/tensorboard"}
BACKENDS_TABLE = "plumbline/backends/__init__.py"
TASKS_TABLE = "plumbline/tasks.py"


def file_of(module: str) -> str | None:
    path = module.replace(".", "/")
    for candidate in (f"{path}.py", f"{path}/__init__.py"):
        if (ROOT / candidate).is_file():
            return candidate
    return None


def with_packages(module: str) -> set[str]:
    """The files that importing a module runs: its own and its packages'."""
    parts = module.split(".")
    files = {file_of(".".join(parts[: n + 1])) for n in range(len(parts))}
    return {file for file in files if file}


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


@cache
def direct_imports(file: str, task: str) -> frozenset[str]:
    """Project files that a file imports anywhere in it, in functions, by tables of module names, and for its task."""
    found: set[str] = set()
    pending: list[ast.AST] = [ast.parse((ROOT / file).read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if is_type_checking(node):
            continue
        pending.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports are not walked"
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "task_module":
            # Its second argument is the room, written out.
            names = [f"{TASKS[task]}.{ast.literal_eval(node.args[1])}"]
        elif (
            isinstance(node, ast.Constant) and isinstance(node.value, str) and file not in (BACKENDS_TABLE, TASKS_TABLE)
        ):
            names = [node.value] if re.fullmatch(r"plumbline(\.\w+)+", node.value) else []
        else:
            continue
        for name in names:
            if name.split(".")[0] in ROOMS:
                found |= with_packages(name)
    return frozenset(found - {file})


def closure(start: set[str], task: str = "detect") -> set[str]:
    seen: set[str] = set()
    pending = set(start)
    while pending:
        file = pending.pop()
        seen.add(file)
        pending |= direct_imports(file, task) - seen
    return seen - EXEMPT


def load_stages(task: str) -> dict[str, object]:
    """Return the stages of dvc.yaml as it reads when params.yaml says `task`."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(ROOT / "dvc.yaml", folder)
        text = (ROOT / "params.yaml").read_text(encoding="utf-8")
        changed, times = re.subn(r"(?m)^task: \w+", f"task: {task}", text)
        assert times == 1
        Path(folder, "params.yaml").write_text(changed, encoding="utf-8")
        with Repo.init(folder, no_scm=True) as repo:
            return {stage.addressing.split(":")[-1]: stage for stage in repo.index.stages}


STAGES = {(task, name): stage for task in TASKS for name, stage in load_stages(task).items()}
CASES = sorted(STAGES)


def module_of(stage: object) -> str:
    return re.search(r"python -m (stages\.\w+)", stage.cmd)[1]


def deps_of(stage: object) -> set[str]:
    """Every dep but params; of a package of the library, its modules."""
    paths = {str(dep.def_path) for dep in stage.deps if not hasattr(dep, "params")}
    packages = {path for path in paths if (ROOT / path / "__init__.py").is_file()}
    modules = {p.relative_to(ROOT).as_posix() for path in packages for p in (ROOT / path).glob("*.py")}
    return (paths - packages) | modules


def outs_of(stage: object) -> set[str]:
    return {str(out.def_path) for out in stage.outs}


# Stages that open the trained weights as an artifact.
OPENED = {"hub": {"torch"}, "evaluate_weights": {"torch"}}


def backends_of(stage: object) -> set[str]:
    """The rows of the table of backends that a stage works with."""
    name, _, target = stage.addressing.split(":")[-1].partition("@")
    rows = set(OPENED.get(name, ()))
    if target:
        rows.add(read_params(ROOT / "params.yaml")["targets"][target]["backend"])
    return {f"plumbline/backends/{row}/__init__.py" for row in rows}


def needed(stage: object, task: str) -> set[str]:
    files = closure({file_of(module_of(stage))}, task)
    if BACKENDS_TABLE in files:
        files = closure(files | backends_of(stage), task)
    return files


@pytest.mark.parametrize(("task", "name"), CASES)
def test_every_imported_module_is_a_dep(task, name):
    stage = STAGES[task, name]
    missing = needed(stage, task) - deps_of(stage)
    assert not missing, f"dvc.yaml, stage {name}: add to deps:\n" + "\n".join(f"- {m}" for m in sorted(missing))


@pytest.mark.parametrize("name", sorted({name for _, name in CASES}))
def test_no_module_is_a_dep_without_being_imported(name):
    """One list serves every task and target: a module, or the room of a task, is in it because one of them imports it.

    What backends share is listed as one folder: which of its modules a backend needs is the backend's affair.
    """
    room = re.compile(rf"plumbline/({'|'.join(TASKS)})/(\w+)/.*")
    listed, imported = set(), set()
    for task in TASKS:
        stage = STAGES[task, name]
        listed |= {room.sub(r"plumbline/*/\2", dep) for dep in deps_of(stage) if dep.endswith(".py")}
        for sibling in (STAGES[key] for key in CASES if key[0] == task and key[1].split("@")[0] == name.split("@")[0]):
            imported |= {room.sub(r"plumbline/*/\2", file) for file in needed(sibling, task)}
    folder = {file for file in listed if file.startswith("plumbline/quantization/")}
    assert not listed - imported - folder
    assert not folder or folder & imported


def test_another_tasks_code_makes_no_stage_stale():
    """But its names: params.yaml is checked for every task."""
    for (task, name), stage in STAGES.items():
        others = tuple(f"plumbline/{other}/" for other in TASKS if other != task)
        foreign = {dep for dep in deps_of(stage) if dep.startswith(others)}
        assert not foreign, (task, name)


@pytest.mark.parametrize(("task", "name"), CASES)
def test_every_path_in_cmd_is_a_dep_or_an_out(task, name):
    stage = STAGES[task, name]
    known = deps_of(stage) | outs_of(stage)
    words = [word for word in shlex.split(stage.cmd) if "/" in word]
    assert words, "a stage reads or writes something"
    for word in words:
        # A folder of outs may be named as one (reports/evaluate/x holds the outs), or lie inside a dep.
        related = [path for path in known if path == word or path.startswith(word + "/")]
        assert related or word in NO_OUTPUT, f"dvc.yaml, stage {name}: {word} in cmd is neither dep nor out"


@pytest.mark.parametrize(("task", "name"), CASES)
def test_params_are_sections_that_the_stage_knows(task, name):
    stage = STAGES[task, name]
    sections = importlib.import_module(module_of(stage)).SECTIONS
    listed = {key for dep in stage.deps if hasattr(dep, "params") for key in dep.params}
    for key in listed - NAMES_ONLY.get(name, set()):
        first = key.split(".")[0]
        # An entry of a mapping of many (targets.onnx-int8), or a part of a section (train.detect).
        assert first in sections or f"{first}.*" in sections, (
            f"dvc.yaml, stage {name}: params {key} is no section of {module_of(stage)}"
        )
    unread = {key for key in sections if not any(key.split(".")[0] == item.split(".")[0] for item in listed)}
    unread -= CHANGES_NOTHING.get(name, set())
    assert not unread, f"dvc.yaml, stage {name}: add to params: {sorted(unread)}"


def test_one_backend_is_a_dep_of_its_own_targets_alone():
    for (_, name), stage in STAGES.items():
        listed = {
            d.split("/")[2] for d in deps_of(stage) if d.startswith("plumbline/backends/") and d != BACKENDS_TABLE
        }
        if "@" in name:
            assert listed == {file.split("/")[2] for file in backends_of(stage)}, name


@pytest.mark.parametrize("backend", TARGET_BACKENDS)
@pytest.mark.parametrize("name", ["export", "evaluate", "benchmark"])
def test_a_target_of_any_backend_lists_what_it_imports(name, backend):
    """Also one that params.yaml does not name: dvc.yaml differs from target to target in the backend's folder alone."""
    package = f"plumbline/backends/{backend}/"
    for task in TASKS:
        stage = STAGES[task, f"{name}@onnx-fp32"]
        files = closure(closure({file_of(module_of(stage))}, task) | {f"{package}__init__.py"}, task)
        missing = {file for file in files - deps_of(stage) if not file.startswith(package)}
        assert not missing, (task, missing)


def test_exempt_modules_hold_nothing():
    for file in EXEMPT:
        body = ast.parse((ROOT / file).read_text(encoding="utf-8")).body
        assert all(isinstance(node, (ast.Expr, ast.Assign)) for node in body), (
            f"{file} is not a dep: keep code out of it"
        )


def test_walker_sees_imports_in_functions_and_tables():
    assert "plumbline/yolo/network.py" in closure({"plumbline/backends/torch/__init__.py"}, "detect")
    assert "plumbline/classify/network/__init__.py" in closure({"plumbline/backends/torch/__init__.py"}, "classify")
    assert "plumbline/formats/voc.py" in closure({"plumbline/formats/__init__.py"})
