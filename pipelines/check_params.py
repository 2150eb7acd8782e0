"""Check the whole of params.yaml before anything runs: ``python -m pipelines.check_params [--set key=value]``.

Every stage checks its own section when it runs; by then another stage may have trained for an hour.
"""

from __future__ import annotations

import argparse
import copy
import difflib
import importlib
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

import stages
from pipelines.flow_params import SECTION as FLOW_SECTION
from pipelines.flow_params import FlowParams
from pipelines.publish_params import SECTION as PUBLISH_SECTION
from pipelines.publish_params import PublishParams
from pipelines.review_params import GATES, REVIEW, GateParams, ReviewParams
from plumbline.errors import ParamsError
from plumbline.params import check_section, line_of, read_params
from plumbline.tasks import TaskParams
from stages.shape import PARAMS_FILE, exit_code

EACH = ".*"  # "targets.*": each entry of the mapping `targets`
Sections = tuple[tuple[str, type[BaseModel]], ...]


@dataclass(frozen=True)
class Override:
    """One ``--set train.detect.epochs=3``.

    Attributes:
        text: As it was typed, ``train.detect.epochs=3``.
        keys: ``("train", "detect", "epochs")``.
        value: What the text after ``=`` is in YAML 1.2.
    """

    text: str
    keys: tuple[str, ...]
    value: Any


def parse_override(text: str) -> Override:
    """Read ``key.key=value``.

    Raises:
        ParamsError: There is no key or no ``=``, or the value is not YAML.

    >>> parse_override("evaluate.confidence_floor=1e-3")
    Override(text='evaluate.confidence_floor=1e-3', keys=('evaluate', 'confidence_floor'), value=0.001)
    """
    name, equals, value = text.partition("=")
    keys = tuple(name.strip().split("."))
    if not equals or not all(keys):
        raise ParamsError(f"--set {text}: expected section.key=value, such as split.seed=3; write it so")
    try:
        return Override(text, keys, YAML(typ="safe", pure=True).load(value))
    except YAMLError as error:
        raise ParamsError(f"--set {text}: the value is not YAML, expected such as 3, 0.5, name or [a, b]") from error


def with_overrides(values: Mapping[str, Any], overrides: Iterable[Override]) -> dict[str, Any]:
    """Return a copy of the values in which each override's key has its value; missing mappings are made.

    Raises:
        ParamsError: A key goes through something that is not a mapping.

    >>> with_overrides({"split": {"seed": 0}}, [parse_override("split.seed=3")])
    {'split': {'seed': 3}}
    """
    changed = copy.deepcopy(dict(values))
    for override in overrides:
        node: Any = changed
        *parents, last = override.keys
        for depth, key in enumerate(parents, start=1):
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                through = ".".join(override.keys[:depth])
                raise ParamsError(
                    f"--set {override.text}: {through} is {node!r}, expected a mapping; set {through} as a whole"
                )
        node[last] = override.value
    return changed


def stage_sections() -> Sections:
    """Return the sections that the stages read, by the `SECTIONS` of every module of `stages`, and the flows' own."""
    # No stage reads `task` as a section: dvc.yaml puts it into their commands.
    found: dict[tuple[str, type[BaseModel]], None] = {("task", TaskParams): None}
    found |= {(FLOW_SECTION, FlowParams): None, (PUBLISH_SECTION, PublishParams): None}
    found |= {(GATES, GateParams): None, (REVIEW, ReviewParams): None}
    for module in sorted(pkgutil.iter_modules(stages.__path__), key=lambda module: module.name):
        read = getattr(importlib.import_module(f"stages.{module.name}"), "SECTIONS", {})
        found.update(dict.fromkeys(read.items()))
    return tuple(found)


def check_params(path: Path, sections: Sections, overrides: Sequence[Override] = ()) -> None:
    """Check every section of the file, with the overrides applied to what was read, not to the file.

    A model may have a method ``missing_files()``: key, with dots in it -> what is wrong with what its value names.

    Args:
        path: params.yaml.
        sections: Section (``train``; ``targets.*`` for each entry of ``targets``) and model; a section may have many.
        overrides: From ``--set``.

    Raises:
        PlumblineError: The first fault found, with the line of the file or the ``--set`` that is to blame.
    """
    values = with_overrides(read_params(path), overrides)
    known = list(dict.fromkeys(name.removesuffix(EACH) for name, _ in sections))
    for section in values:
        if section not in known:
            near = difflib.get_close_matches(str(section), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "remove it"
            where = _where(path, (str(section),), overrides)
            raise ParamsError(f"{where}: unknown section {section!r}, expected one of: {', '.join(known)}; {hint}")
    for name, model in sections:
        for section, entry in _entries(path, name, model, values, overrides):
            _check(path, section, entry, model, overrides)


def _entries(
    path: Path, name: str, model: type[BaseModel], values: Mapping[str, Any], overrides: Sequence[Override]
) -> Iterator[tuple[str, Any]]:
    """Give each section that `name` stands for, with its values."""
    section = name.removesuffix(EACH)
    if section not in values:
        raise ParamsError(f"{path}: no section {section!r}, expected it beside: {', '.join(values)}; add it")
    if section == name:
        yield section, values[section]
        return
    entries = values[section]
    if not isinstance(entries, dict) or not entries:
        where = _where(path, (section,), overrides)
        raise ParamsError(
            f"{where}: wrong value for {section}, expected a mapping with one entry or more, got {entries!r}; add one"
        )
    pattern = getattr(model, "ENTRY_NAME", ".*")
    for key, entry in entries.items():
        if not re.fullmatch(pattern, str(key)):
            where = _where(path, (section, key), overrides)
            raise ParamsError(f"{where}: the name {key!r} cannot be used, expected {pattern}; rename {section}.{key}")
        yield f"{section}.{key}", entry


def _check(path: Path, section: str, entry: Any, model: type[BaseModel], overrides: Sequence[Override]) -> None:
    keys = tuple(section.split("."))
    try:
        checked = check_section(path, section, entry, model)
    except ParamsError as error:
        blamed = _blamed(_fault_keys(keys, error), path, overrides)
        if blamed is None:
            raise
        # The message starts with the file's line: right, but it is not there that the value came from.
        said = str(error).removeprefix(f"{path}:").partition(": ")[2]
        raise ParamsError(f"--set {blamed.text}: {said}") from error
    missing_files = getattr(checked, "missing_files", None)
    for key, message in (missing_files() if missing_files else {}).items():
        raise ParamsError(f"{_where(path, (*keys, *key.split('.')), overrides)}: {section}.{key}: {message}")


def _fault_keys(section: tuple[str, ...], error: ParamsError) -> tuple[str, ...]:
    """Return the key that `check_section` names: of the model's faults an unknown key, or else the first."""
    if not isinstance(error.__cause__, ValidationError):
        return section
    faults = error.__cause__.errors(include_url=False)
    first = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
    return (*section, *(str(key) for key in first["loc"]))


def _blamed(keys: tuple[str, ...], path: Path, overrides: Sequence[Override]) -> Override | None:
    """Return the last override of a key, of one above or below it, or of the entry that it is missing from."""
    near = [keys]
    if len(keys) > 1 and not _is_in(read_params(path), keys[:-1]):
        near.append(keys[:-1])
    for override in reversed(overrides):
        for one in near:
            shared = min(len(one), len(override.keys))
            if one[:shared] == override.keys[:shared]:
                return override
    return None


def _is_in(values: Any, keys: Iterable[str]) -> bool:
    for key in keys:
        if not isinstance(values, dict) or key not in values:
            return False
        values = values[key]
    return True


def _where(path: Path, keys: tuple[str, ...], overrides: Sequence[Override]) -> str:
    blamed = _blamed(keys, path, overrides)
    return f"--set {blamed.text}" if blamed else f"{path}:{line_of(path, keys)}"


def main(argv: Sequence[str] | None = None) -> int:
    """Check params.yaml: 0, or 1 and one line on stderr."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--params", type=Path, default=PARAMS_FILE, metavar="PATH", help="default: %(default)s")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="check with this value instead; may be repeated"
    )
    arguments = parser.parse_args(argv)
    return exit_code(
        lambda: check_params(arguments.params, stage_sections(), [parse_override(text) for text in arguments.set])
    )


if __name__ == "__main__":
    sys.exit(main())
