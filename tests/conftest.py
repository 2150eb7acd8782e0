"""Fixtures that several rooms' tests share."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from photo_dataset import CLASSES, write_photo_dataset
from untrained_detector import make_checkpoint

ROOT = Path(__file__).parent.parent

# Stand-ins for packages, by those packages' names: collecting them would put them in the way of the real ones.
collect_ignore = ["stand_ins"]

# DVC keeps a machine-wide state by default; tests must neither read nor fill it.
os.environ.setdefault("DVC_SITE_CACHE_DIR", str(Path(tempfile.gettempdir()) / f"plumbline-tests-{os.getuid()}"))
os.environ.setdefault("DVC_NO_ANALYTICS", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")
# Whoever runs the tests signs commits, has hooks, or owns the folder under another name.
os.environ["GIT_CONFIG_GLOBAL"] = os.devnull
os.environ |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
# As in the Makefile; it is read when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


# Machines are shared and noisy: nothing is timed.
settings.register_profile("noisy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("noisy")
# For CI, whose red has to mean that the change is wrong: the same examples for the same code, of which hypothesis also
# draws constants. Others are drawn by every `pytest` by hand and by `make test-long`.
settings.register_profile("repeatable", settings.get_profile("noisy"), derandomize=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put Prefect's tests last: with what it leaves in a process, workers that are forked later end with an error."""
    items.sort(key=lambda item: "tests/pipelines/" in item.path.as_posix())
    for item in items:
        if item.get_closest_marker("long"):  # pytest's limit counts what a fixture takes, too
            item.add_marker(pytest.mark.timeout(3600))


@pytest.fixture(scope="session")
def bccd() -> Path:
    """The folder of 364 blood-cell photographs in VOC XML, or a skip where it is not on this machine."""
    folder = Path(os.environ.get("PLUMBLINE_BCCD", ROOT.parent / "shared" / "data" / "bccd"))
    if not (folder / "Annotations").is_dir():
        pytest.skip("needs the BCCD data set: set PLUMBLINE_BCCD to its folder")
    return folder


@pytest.fixture(scope="session")
def hubs(tmp_path_factory, photos) -> dict[str, Path]:
    """Model name -> folder with `weights/` and `hub/` artifacts of a 3-class detector with input 96 x 96."""
    from plumbline.chosen_threshold import ThresholdParams
    from plumbline.files import write_json
    from plumbline.params import DifficultParams
    from stages.hub import DetectParams, HubParams, HubSections, run

    data = write_photo_dataset(tmp_path_factory.mktemp("photos"), photos)
    params = HubSections(
        hub=HubParams(opset=17),
        detect=DetectParams(iou_threshold=0.7, max_detections=300),
        threshold=ThresholdParams(rule="best_f1", precision=0.9),
        evaluate=DifficultParams(difficult="count"),
    )
    folders = {}
    for model in ("yolo11n", "yolo26n"):
        folder = tmp_path_factory.mktemp(model)
        (folder / "train").mkdir()
        make_checkpoint(folder / "train" / "best.pt", model, num_classes=len(CLASSES), image_size=96)
        record = {"task": "detect", "class_names": CLASSES, "toolchain": {}, "lineage": {"git_commit": "0"}}
        write_json(folder / "train" / "train.json", record)
        run("detect", params, train=folder / "train", weights=folder / "weights", out=folder / "hub", **data)
        folders[model] = folder
    return folders


@pytest.fixture(scope="session")
def photos() -> list[np.ndarray]:
    """Images of several shapes with structure at several scales, BGR uint8."""
    rng = np.random.default_rng(0)
    shapes = [(96, 96), (60, 100), (100, 60), (33, 77), (480, 640), (97, 95)]
    photos = []
    for height, width in shapes:
        y, x = np.mgrid[:height, :width]
        waves = np.stack([np.sin(x / a) + np.cos(y / b) for a, b in ((5, 9), (17, 4), (30, 25))], axis=-1)
        noise = rng.normal(0, 10, (height, width, 3))
        photos.append(np.clip(127 + 50 * waves + noise, 0, 255).astype(np.uint8))
    return photos
