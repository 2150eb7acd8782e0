"""`dvc plots show` draws the tables of an evaluation with the templates in .dvc/plots."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
# Template -> its table, the x and y of dvc.yaml, and the fields that it reads.
TABLES = {
    "pr_curve": ("pr_curve", "recall", "precision", {"recall", "precision", "class"}),
    "confidence_curve": ("confidence_curve", "confidence", "f1", {"confidence", "precision", "recall", "f1"}),
    "bars": ("classes", "f1", "class", {"f1", "class"}),
    "slices": ("slices", "num_images", "slice", {"column", "slice", "map50_95"}),
}


def tables():
    """Tables as an evaluation writes them, with cells that are undefined."""
    steps = np.linspace(0, 1, 11)
    return {
        "pr_curve": pd.DataFrame({"recall": steps, "precision": 1 - steps, "class": "all"}),
        "confidence_curve": pd.DataFrame(
            {"confidence": steps, "precision": np.where(steps > 0.9, np.nan, steps), "recall": 1 - steps, "f1": 0.5}
        ),
        "classes": pd.DataFrame({"class": ["cat", "dog"], "num_objects": [3, 0], "f1": [0.5, np.nan]}),
        "slices": pd.DataFrame(
            {"column": "source", "slice": ["a", "b"], "num_images": [2, 3], "map50_95": [np.nan, 0.25]}
        ),
    }


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """What `dvc plots show` makes of them: file -> its plot."""
    folder = tmp_path_factory.mktemp("plots")
    dvc = [sys.executable, "-m", "dvc"]
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}

    def run(*command):
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(*dvc, "init", "--no-scm", "--quiet")
    shutil.copytree(ROOT / ".dvc" / "plots", folder / ".dvc" / "plots")
    frames, plots = tables(), []
    for template, (stem, x, y, _) in TABLES.items():
        frames[stem].to_csv(folder / f"{stem}.csv", index=False, lineterminator="\n", float_format="%.6g")
        plots.append({f"{stem}.csv": {"cache": False, "template": template, "x": x, "y": y, "title": f"of {stem}"}})
    (folder / "curves").mkdir()
    for name in ("train_loss", "val_map50_95"):
        pd.DataFrame({"epoch": [1, 2], "value": [0.5, 0.25]}).to_csv(folder / "curves" / f"{name}.csv", index=False)
    plots.append({"curves": {"cache": False, "x": "epoch", "y": "value"}})
    with (folder / "dvc.yaml").open("w") as file:
        YAML().dump({"stages": {"evaluate": {"cmd": "true", "plots": plots}}}, file)
    found = json.loads(run(*dvc, "plots", "show", "--json", "--split"))
    assert not found.get("errors")
    return found["data"]


@pytest.mark.parametrize("template", TABLES)
def test_a_template_gets_its_rows_and_reads_only_what_they_have(shown, template):
    stem, _, _, fields = TABLES[template]
    (plot,) = shown[f"{stem}.csv"]
    rows = plot["anchor_definitions"]["<DVC_METRIC_DATA>"]
    assert len(rows) == len(tables()[stem])
    assert fields <= set(rows[0])
    content = plot["content"]
    text = json.dumps(content)
    assert plot["anchor_definitions"]["<DVC_METRIC_TITLE>"] == f"of {stem}"
    made = {name for step in content.get("transform", []) for name in np.atleast_1d(step.get("as", [])).tolist()}
    read = set(re.findall(r'"field": "([^"<]+)"', text)) | set(re.findall(r"datum\['?\.?(\w+)", text))
    read |= set(re.findall(r"datum\.(\w+)", text))
    assert read - made - {"rev", "top1"} <= set(rows[0])  # top1: of the slices of the task classify


@pytest.mark.parametrize("template", ["confidence_curve", "bars", "slices"])
def test_undefined_cells_are_empty_and_the_template_tells_them_from_zero(shown, template):
    (plot,) = shown[f"{TABLES[template][0]}.csv"]
    assert any("" in row.values() for row in plot["anchor_definitions"]["<DVC_METRIC_DATA>"])
    assert "!== ''" in json.dumps(plot["content"])


def test_a_folder_of_curves_is_one_plot_for_each_file(shown):
    curves = {name: plot for name, (plot,) in shown.items() if name.startswith("curves")}
    assert sorted(Path(name).stem for name in curves) == ["train_loss", "val_map50_95"]
    for plot in curves.values():
        assert plot["anchor_definitions"]["<DVC_METRIC_X_LABEL>"] == "epoch"
        assert [row["value"] for row in plot["anchor_definitions"]["<DVC_METRIC_DATA>"]] == ["0.5", "0.25"]
