"""The Prefect server that `make flow` starts for itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys

PROGRAM = """
import json, os, urllib.request
from pipelines.server import start_server
address = start_server(os.environ)
with urllib.request.urlopen(address.removesuffix("/api") + "/ui-settings") as answer:
    print(json.dumps({"address": address, "asked": json.load(answer)["api_url"]}))
"""


def test_its_ui_asks_itself_and_not_the_default_port(tmp_path):
    env = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    env["PREFECT_HOME"] = str(tmp_path / "home")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, check=True, timeout=600
    )
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["asked"] == told["address"]
    assert not told["address"].endswith(":4200/api")
