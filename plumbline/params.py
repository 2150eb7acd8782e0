"""Read a section of params.yaml into a typed, frozen model, with errors that name the line.

The parser is ruamel.yaml's safe one (YAML 1.2), the parser that DVC hashes params with: PyYAML reads ``1e-3``
as a string, ``no`` as false and ``010`` as eight.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from plumbline.errors import ParamsError


class StageParams(BaseModel):
    """A section of params.yaml: no key missing or unknown, no type coerced, nothing changed later."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class NearDuplicateParams(StageParams):
    """Which images count as near-duplicates: one definition for the checks and for the split."""

    max_hash_bits: int = Field(
        ge=0, le=16, description="Images whose 64-bit perceptual hashes differ by no more bits are near-duplicates."
    )


class DifficultParams(BaseModel):
    """What others need of the section ``evaluate``, to judge as it does."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    difficult: Literal["count", "ignore"] = Field(description="Boxes that a label calls difficult.")


Model = TypeVar("Model", bound=BaseModel)
KeyPath = tuple[str | int, ...]


def read_params(path: Path) -> dict[str, Any]:
    """Read the whole file as plain values.

    Raises:
        ParamsError: The file is missing, is not YAML, or is not a mapping at its top.
    """
    try:
        values = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ParamsError(
            f"{path}: cannot be read ({error.strerror}), expected the pipeline's parameters;"
            " run from the project's root"
        ) from error
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        problem = str(error.problem).partition("\n")[0]
        raise ParamsError(f"{path}:{line}: not YAML ({problem}), expected `key: value`; mend the line") from error
    except (YAMLError, UnicodeDecodeError) as error:
        problem = str(error).partition("\n")[0]
        raise ParamsError(f"{path}:1: not YAML ({problem}), expected UTF-8 text; save it as such") from error
    if not isinstance(values, dict):
        raise ParamsError(
            f"{path}:1: not parameters, expected a mapping of sections, got {type(values).__name__};"
            " write `section:` lines"
        )
    return values


def load_section(path: Path, section: str, model: type[Model]) -> Model:
    """Load one section, written with dots for nesting (``targets.onnx-int8``), into its model.

    Raises:
        ParamsError: The section is missing, or a key in it is unknown, missing, or has a wrong type or value.
            The first such key is named with its line; the rest are counted.
    """
    values: Any = read_params(path)
    for part in section.split("."):
        if not isinstance(values, dict) or part not in values:
            known = ", ".join(values) if isinstance(values, dict) else ""
            raise ParamsError(f"{path}: no section {section!r}, expected one of: {known}; add it")
        values = values[part]
    return check_section(path, section, values, model)


def check_section(path: Path, section: str, values: Any, model: type[Model]) -> Model:
    """Make the model from values already read, or say which line of `path` is wrong (see `load_section`)."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        # An unknown key explains the missing one beside it, so it is told first.
        faults.sort(key=lambda fault: fault["type"] != "extra_forbidden")
        first = _sentence(path, section, dict(faults[0]), model)
        rest = f" (and {len(faults) - 1} more in this section)" if len(faults) > 1 else ""
        raise ParamsError(first + rest) from error


def line_of(path: Path, keys: KeyPath) -> int:
    """Return the 1-based line on which a key stands, or its nearest parent that is there."""
    node = YAML(typ="rt").load(path.read_text(encoding="utf-8"))
    line = 1
    for key in keys:
        try:
            at = node.lc.key(key) if hasattr(node, "keys") else node.lc.item(key)
            node = node[key]
        except (AttributeError, KeyError, IndexError, TypeError):
            break
        line = int(at[0]) + 1
    return line


def _sentence(path: Path, section: str, fault: dict[str, Any], model: type[BaseModel]) -> str:
    keys: KeyPath = (*section.split("."), *fault["loc"])
    name = ".".join(str(key) for key in keys)
    where = f"{path}:{line_of(path, keys)}"
    if fault["type"] == "extra_forbidden":
        known = _known_keys(model, fault["loc"][:-1])
        near = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1)
        inner = _sections_with(model, fault["loc"])
        meant = " or ".join(repr(key) for key in inner or near)
        hint = f"; did you mean {meant}?" if meant else "; remove it"
        return f"{where}: unknown parameter {name}, expected one of: {', '.join(known)}{hint}"
    if fault["type"] == "missing":
        return f"{where}: missing parameter {name}, expected a value; add it"
    expected = str(fault["msg"]).removeprefix("Input should be ").removeprefix("Value error, ")
    got = f"{fault['input']!r} ({type(fault['input']).__name__})"
    return f"{where}: wrong value for {name}, expected {expected}, got {got}; change it"


def _sections_with(model: type[BaseModel], loc: KeyPath) -> list[str]:
    """Return the parts of a section that know the key which the section itself does not.

    A person writes train.epochs and means train.detect.epochs.
    """
    parts = _known_keys(model, loc[:-1])
    return [f"{part}.{loc[-1]}" for part in parts if str(loc[-1]) in _known_keys(model, (*loc[:-1], part))]


def _known_keys(model: type[BaseModel], inner: KeyPath) -> list[str]:
    """Return the keys of the model at `inner` below `model`, where a field is a model itself."""
    for key in inner:
        field = model.model_fields.get(str(key))
        inside = field.annotation if field is not None else None
        if not (isinstance(inside, type) and issubclass(inside, BaseModel)):
            break
        model = inside
    return list(model.model_fields)
