"""YOLO through ultralytics (AGPL-3.0): the only room of the library that imports it, and it copies nothing of it.

Nothing of ultralytics may be imported before `quiet_ultralytics` has switched off what it does behind one's back.
"""

from __future__ import annotations

import atexit
import os
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
