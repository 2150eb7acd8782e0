"""Every fault is found under its code with its file and line, and nothing else is, in each label format."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from planted_data import CLASS_NAMES, FORMATS, Found, make_plant, write
from planted_faults import make_planted

from plumbline.checks import judge
from plumbline.checks.view import CheckSettings
from plumbline.faults import FAULTS, TABLE_EXPECTATION
from plumbline.intake import read_source
from plumbline.manifest import Dataset

# What only some formats can say, and what is no fault of a file; each is planted by another test.
NOT_PLANTED = {"E113", TABLE_EXPECTATION}

SETTINGS = CheckSettings(
    severity=dict.fromkeys(FAULTS, "error"),
    fix=(),
    undo=(),
    clip_px=1.0,
    tiny_px=2.0,
    giant_share=0.9,
    extreme_aspect=20.0,
    near_duplicate_iou=0.9,
    two_classes_iou=0.9,
    min_boxes_per_class=5,
    max_imbalance=4.0,
    max_hash_bits=6,
)


def found_in(dataset: Dataset, settings: CheckSettings = SETTINGS) -> Counter[Found]:
    findings = judge(dataset, settings).findings
    columns = ("code", "source_file", "source_line")
    return Counter(zip(*(findings[column].tolist() for column in columns), strict=True))


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Format -> (what was planted, what was found)."""
    results = {}
    for name in FORMATS:
        folder = tmp_path_factory.mktemp(name)
        plant = make_planted(name, folder)
        dataset = read_source(str(plant.folder), "auto", CLASS_NAMES, folder / "work", lambda line: None)
        results[name] = Counter(plant.found), found_in(dataset)
    return results


@pytest.mark.parametrize("name", FORMATS)
def test_every_planted_fault_is_found_where_it_is(planted, name):
    wanted, found = planted[name]
    assert sorted((wanted - found).elements()) == []


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_that_is_clean_is_reported(planted, name):
    wanted, found = planted[name]
    assert sorted((found - wanted).elements()) == []


def test_there_are_many_faults_of_every_code(planted):
    everything = sum((wanted for wanted, _ in planted.values()), Counter())
    assert everything.total() >= 300
    assert {code for code, _, _ in everything} == set(FAULTS) - NOT_PLANTED


@pytest.mark.parametrize("name", FORMATS)
def test_a_clean_data_set_has_no_finding(name, tmp_path):
    plant = make_plant(name, tmp_path)
    write(plant)
    dataset = read_source(
        str(plant.folder), "auto", ("cat", "dog", "bird", "scarce"), tmp_path / "work", lambda line: None
    )
    assert found_in(dataset, replace(SETTINGS, max_imbalance=100.0)) == Counter()
    assert len(dataset.images) == len(plant.images)
    assert len(dataset.annotations) == len(plant.boxes)
