"""prefect.yaml as Prefect reads it, and as people change it."""

from __future__ import annotations

import inspect
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent.parent
FILE = ROOT / "prefect.yaml"
VALUES = YAML(typ="safe").load(FILE.read_text("utf-8"))
DEPLOYMENTS = {each["name"]: each for each in VALUES["deployments"]}


def test_it_is_what_prefect_takes():
    from prefect.cli.deploy._models import PrefectYamlModel
    from prefect.events import DeploymentEventTrigger

    model = PrefectYamlModel.model_validate(VALUES)
    assert [each.name for each in model.deployments] == ["retrain", "pull-request", "monitor"]
    for each in model.deployments:
        for trigger in each.triggers or []:
            DeploymentEventTrigger.model_validate(trigger)


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_each_is_a_flow_with_these_parameters(name, alone):
    from prefect.flows import load_flow_from_entrypoint

    flow = load_flow_from_entrypoint(DEPLOYMENTS[name]["entrypoint"])
    assert flow.name == name
    known = inspect.signature(flow.fn).parameters
    given = set(DEPLOYMENTS[name].get("parameters", {}))
    given |= {key for trigger in DEPLOYMENTS[name].get("triggers", []) for key in trigger.get("parameters", {})}
    assert given <= set(known)
    # Only a pull request is always about one commit that somebody has to name.
    missing = {key for key, each in known.items() if each.default is each.empty} - given
    assert missing == ({"revision"} if name == "pull-request" else set())


def test_no_path_of_a_machine_is_in_it():
    assert VALUES["pull"] == []  # Prefect would write the folder of who deploys into it
    for each in DEPLOYMENTS.values():
        assert ":" not in each["entrypoint"]  # a module, not a file
        assert not any(str(value).startswith(("/", "~", ".")) for value in each.get("parameters", {}).values())
        assert each["work_pool"] == {"name": "plumbline"}


def test_every_deployment_has_a_limit_and_every_schedule_a_timezone():
    for each in DEPLOYMENTS.values():
        assert each["concurrency_limit"]["limit"] == 1
        for schedule in each.get("schedules", []):
            assert ZoneInfo(schedule["timezone"])
            assert schedule["slug"]
    # A cron at an hour that the clock change skips or doubles runs never or twice that night.
    minute, hour, *_ = DEPLOYMENTS["retrain"]["schedules"][0]["cron"].split()
    assert (minute.isdigit(), int(hour) not in (1, 2, 3)) == (True, True)


def test_the_trigger_waits_for_what_the_watch_sends():
    from pipelines.watch_data import DEPLOYMENT, EVENT, RESOURCE

    (trigger,) = DEPLOYMENTS["retrain"]["triggers"]
    assert trigger["expect"] == [EVENT]
    assert trigger["match"] == {"prefect.resource.id": RESOURCE}
    assert DEPLOYMENT == "retrain/retrain"


def test_what_is_not_built_says_so_and_is_not_scheduled(prefect_api):
    from pipelines.deployments import monitor

    assert not any(schedule["active"] for schedule in DEPLOYMENTS["monitor"]["schedules"])
    state = monitor(return_state=True)
    assert (state.name, state.message) == ("NotBuilt", "nothing was monitored: the watch for drift is not built yet")
