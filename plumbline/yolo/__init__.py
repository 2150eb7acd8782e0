"""YOLO through ultralytics (AGPL-3.0): the only room of the library that imports it, and it copies nothing of it.

Nothing of ultralytics may be imported before `quiet_ultralytics` has switched off what it does behind one's back.
"""

from __future__ import annotations

import atexit
import difflib
import importlib.util
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_LOGGERS = ("clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb")


def quiet_ultralytics() -> None:
    """Make ultralytics safe to import: no pip, no network, no user-wide settings, no foreign loggers.

    Its DVCLive logger crashes outside of a DVC repository, and its settings file is shared by every project of a user:
    here it lies in a folder of this process' own.
    """
    if "PLUMBLINE_YOLO_CONFIG" not in os.environ:
        config = Path(tempfile.mkdtemp(prefix="plumbline-yolo-"))
        atexit.register(shutil.rmtree, config, ignore_errors=True)
        os.environ["PLUMBLINE_YOLO_CONFIG"] = os.environ["YOLO_CONFIG_DIR"] = str(config)
    os.environ["YOLO_AUTOINSTALL"] = "false"
    os.environ.setdefault("YOLO_VERBOSE", "false")
    from ultralytics.utils import SETTINGS

    SETTINGS.update(dict.fromkeys(("sync", "vscode_msg", "openvino_msg", *_LOGGERS), False))


def known_detectors() -> list[str]:
    """Return the detectors that the installed ultralytics knows, with their sizes: yolo11n, yolov8m-p2, yolov3..."""
    return sorted(name for name in _architectures() if re.fullmatch(r"yolov?\d+[a-z]?(-p\d)?", name))


def is_detector(model: str) -> bool:
    """Tell whether ultralytics knows an architecture, written with its size.

    >>> is_detector("yolo11n"), is_detector("yolov8n-p2"), is_detector("yolo11n-seg"), is_detector("yolo11q")
    (True, True, False, False)
    """
    return model in known_detectors()


def nearest_detector(model: str) -> str:
    """Return the known detector whose name is most like a given one.

    >>> nearest_detector("yolov11n"), nearest_detector("yolo11")
    ('yolo11n', 'yolo11n')
    """
    return _nearest(model, known_detectors())


def known_classifiers() -> list[str]:
    """Return the classifiers that the installed ultralytics knows, with their sizes: yolo11n-cls, yolov8m-cls..."""
    return sorted(name for name in _architectures() if name.endswith("-cls"))


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, without pictures; ultralytics' errors go on with advice.

    >>> first_line(ValueError(chr(0x274C) + " no such file")), first_line(EOFError())
    ('no such file', 'EOFError')
    """
    lines = str(error).strip().splitlines()
    return " ".join(lines[0].encode("ascii", "ignore").decode().split()) if lines else type(error).__name__


def _nearest(name: str, known: list[str]) -> str:
    # The size n comes first where several are as like: it is the one to begin with.
    ordered = sorted(known, key=lambda other: (not re.search(r"\dn(-|$)", other), other))
    return max(ordered, key=lambda other: difflib.SequenceMatcher(None, name, other).ratio())


def _architectures() -> Iterator[str]:
    """Read the names of all architectures of the installed ultralytics, which is not imported: that takes seconds."""
    found = importlib.util.find_spec("ultralytics")
    assert found is not None
    assert found.origin is not None
    for path in (Path(found.origin).parent / "cfg" / "models").rglob("yolo*.yaml"):
        # "  n: [0.50, 0.25, 1024]" under "scales:"
        sizes = re.findall(r"^ +([a-z]): *\[", path.read_text(encoding="utf-8"), re.MULTILINE)
        family, dash, kind = path.stem.partition("-")
        yield from (f"{family}{size}{dash}{kind}" for size in sizes or [""])
