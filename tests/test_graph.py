"""dvc.yaml lists everything that can change a stage's result: DVC only sees what is listed."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
from dvc.repo import Repo

ROOT = Path(__file__).parent.parent
ROOMS = ("plumbline", "stages", "pipelines")
# These hold a docstring and a version, which test_exempt_modules_hold_nothing checks.
EXEMPT = {"plumbline/__init__.py", "plumbline/runtime/__init__.py", "stages/__init__.py"}
# Stages that read the keys of a section, and none of its values.
NAMES_ONLY = {"report": {"targets"}}
# How fast a stage does its work changes nothing that it makes.
CHANGES_NOTHING = {"ingest": {"scan"}}
BACKENDS_TABLE = "plumbline/backends/__init__.py"


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
def direct_imports(file: str) -> frozenset[str]:
    """Project files that a file imports anywhere in it, in functions and by tables of module names too."""
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
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and file != BACKENDS_TABLE:
            names = [node.value] if re.fullmatch(r"plumbline(\.\w+)+", node.value) else []
        else:
            continue
        for name in names:
            if name.split(".")[0] in ROOMS:
                found |= with_packages(name)
    return frozenset(found - {file})


def closure(start: set[str]) -> set[str]:
    seen: set[str] = set()
    pending = set(start)
    while pending:
        file = pending.pop()
        seen.add(file)
        pending |= direct_imports(file) - seen
    return seen - EXEMPT


def load_stages() -> dict[str, object]:
    with Repo(str(ROOT)) as repo:
        return {stage.addressing.split(":")[-1]: stage for stage in repo.index.stages}


STAGES = load_stages()


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


def backend_of(stage: object) -> set[str]:
    """The one row of the table of backends that a stage works with."""
    if "--artifact models/weights" in stage.cmd:
        return {"plumbline/backends/torch.py"}
    target = re.search(r"models/artifacts/([\w.-]+)", stage.cmd)
    if not target or "@" not in stage.addressing:
        return set()
    from plumbline.params import read_params

    backend = read_params(ROOT / "params.yaml")["targets"][target[1]]["backend"]
    return {f"plumbline/backends/{backend}.py"}


def needed(stage: object) -> set[str]:
    files = closure({file_of(module_of(stage))})
    if BACKENDS_TABLE in files:
        files = closure(files | backend_of(stage))
    return files


@pytest.mark.parametrize("name", sorted(STAGES))
def test_every_imported_module_is_a_dep(name):
    missing = needed(STAGES[name]) - deps_of(STAGES[name])
    assert not missing, f"dvc.yaml, stage {name}: add to deps:\n" + "\n".join(f"- {m}" for m in sorted(missing))


@pytest.mark.parametrize("name", sorted(STAGES))
def test_no_module_is_a_dep_without_being_imported(name):
    listed = {dep for dep in deps_of(STAGES[name]) if dep.endswith(".py")}
    assert not listed - needed(STAGES[name])


@pytest.mark.parametrize("name", sorted(STAGES))
def test_every_path_in_cmd_is_a_dep_or_an_out(name):
    stage = STAGES[name]
    known = deps_of(stage) | outs_of(stage)
    words = [word for word in shlex.split(stage.cmd) if "/" in word]
    assert words, "a stage reads or writes something"
    for word in words:
        # A folder of outs may be named as one (reports/evaluate/x holds the outs), or lie inside a dep.
        related = [path for path in known if path == word or path.startswith(word + "/")]
        assert related, f"dvc.yaml, stage {name}: {word} in cmd is neither dep nor out"


@pytest.mark.parametrize("name", sorted(STAGES))
def test_params_are_sections_that_the_stage_knows(name):
    stage = STAGES[name]
    sections = importlib.import_module(module_of(stage)).SECTIONS
    listed = {key for dep in stage.deps if hasattr(dep, "params") for key in dep.params}
    for key in listed - NAMES_ONLY.get(name, set()):
        pattern = f"{key.split('.')[0]}.*" if "." in key else key
        assert pattern in sections, f"dvc.yaml, stage {name}: params {key} is no section of {module_of(stage)}"
    unread = {key for key in sections if not any(key.split(".")[0] == item.split(".")[0] for item in listed)}
    unread -= CHANGES_NOTHING.get(name, set())
    assert not unread, f"dvc.yaml, stage {name}: add to params: {sorted(unread)}"


def test_one_backend_is_a_dep_of_its_own_targets_alone():
    for name, stage in STAGES.items():
        listed = {d for d in deps_of(stage) if d.startswith("plumbline/backends/") and d != BACKENDS_TABLE}
        if "@" in name:
            assert listed == backend_of(stage), name


def test_exempt_modules_hold_nothing():
    for file in EXEMPT:
        body = ast.parse((ROOT / file).read_text(encoding="utf-8")).body
        assert all(isinstance(node, (ast.Expr, ast.Assign)) for node in body), (
            f"{file} is not a dep: keep code out of it"
        )


def test_walker_sees_imports_in_functions_and_tables():
    assert "plumbline/yolo/network.py" in closure({"plumbline/backends/torch.py"})
    assert "plumbline/formats/voc.py" in closure({"plumbline/formats/__init__.py"})
