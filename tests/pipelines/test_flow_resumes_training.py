"""The real line, killed while it trains: the next flow goes on from the checkpoint, with what came before cached."""

from __future__ import annotations

import json
import os

import psutil
import pytest
from flow_runs import command, in_time
from project_clone import TINY, Clone

from pipelines.run_stage import FLOW_ROOT


@pytest.mark.long
def test_a_killed_training_goes_on(tmp_path, prefect_api):
    from prefect.settings import get_current_settings

    clone = Clone(tmp_path)
    clone.set_params({**TINY, "targets": {"onnx-fp32": {"backend": "onnx", "precision": "fp32"}}})
    server = {**clone.env, "PREFECT_API_URL": get_current_settings().api.url}
    flow = command(clone.folder, server)
    assert flow.stdout is not None
    assert any("train: epoch 3/8" in line for line in flow.stdout), "it has ended before the third epoch"
    flow.kill()
    flow.communicate()
    in_time(lambda: not any(of_flow(process, clone.folder) for process in psutil.process_iter()) or None)

    again = command(clone.folder, server)
    output, _ = again.communicate(timeout=3000)

    assert again.returncode == 0, output
    record = json.loads((clone.folder / "models" / "train" / "train.json").read_text())
    after = record["lineage"]["resumed_from_epoch"]
    assert 3 <= after < 8
    assert f"train: going on after epoch {after} of 8" in output
    assert "Running stage 'split'" not in output
    assert "Running stage 'hub'" in output


def of_flow(process: psutil.Process, root) -> bool:
    try:
        return process.environ().get(FLOW_ROOT) == os.fspath(root) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
