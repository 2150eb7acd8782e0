"""The table of tasks. A task is a package with one room for each thing that a stage asks of it.

A stage imports the one room that it needs (`task_module`), and names it as its dep with the task's name, as in
``plumbline/${task}/scoring``: code of another task, or of another room, makes no stage of this one stale.

- ``training``: ``train(...)``, see `plumbline.trained`.
- ``network``: ``load_network(...)``, see `plumbline.networks`.
- ``scoring``: ``truth_of``, ``prediction_rows``, ``choose_threshold``, ``evaluate``, ``curves_picture``,
  ``worst_sheet``, ``bootstrap``, see `plumbline.scores`.
- ``reporting``: the rows and parts of the report.
- ``reviewing``: the intervals of a difference and the images that changed, see `plumbline.review`.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Literal

from pydantic import RootModel

Task = Literal["detect", "classify"]

# Value of `task` in params.yaml and artifact.json -> package.
TASKS = {"detect": "plumbline.detect", "classify": "plumbline.classify"}


class TaskParams(RootModel[Task]):
    """The value of ``task`` in params.yaml."""


def task_module(task: str, room: str) -> ModuleType:
    """Import one room of a task.

    Raises:
        KeyError: There is no such task; params.yaml and artifact.json are checked before.
    """
    return importlib.import_module(f"{TASKS[task]}.{room}")
