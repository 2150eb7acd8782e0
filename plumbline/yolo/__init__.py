"""YOLO through ultralytics (AGPL-3.0): the only room of the library that imports it, and it copies nothing of it.

Nothing of ultralytics may be imported before `quiet_ultralytics` has switched off what it does behind one's back.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import re
import shutil
import tempfile
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


def known_detectors() -> set[str]:
    """Return the detectors that the installed ultralytics knows, without their sizes: yolo11, yolov8-p2...

    Its files are listed and it is not imported, which would take seconds.
    """
    found = importlib.util.find_spec("ultralytics")
    assert found is not None
    assert found.origin is not None
    names = {path.stem for path in (Path(found.origin).parent / "cfg" / "models").rglob("yolo*.yaml")}
    return {name for name in names if re.fullmatch(r"yolov?\d+(-p\d)?", name)}


def is_detector(model: str) -> bool:
    """Tell whether ultralytics knows an architecture, written with its size.

    >>> is_detector("yolo11n"), is_detector("yolov8n-p2"), is_detector("yolo11n-seg"), is_detector("yolo99n")
    (True, True, False, False)
    """
    return re.sub(r"(?<=\d)[a-z](?=-|$)", "", model) in known_detectors()
