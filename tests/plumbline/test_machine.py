"""The description of a machine, read from a tree of files such as Linux shows."""

import json
from dataclasses import asdict

import pytest

from plumbline.machine import describe_machine, read_temperature_c


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def test_a_pc(tmp_path):
    write(
        tmp_path,
        {
            "proc/cpuinfo": "processor\t: 0\nmodel name\t: AMD EPYC 7B13\nflags\t: a b\n\nprocessor\t: 1\n",
            "proc/meminfo": "MemTotal:       16384 kB\nMemFree:  5 kB\n",
            "proc/loadavg": "1.25 0.50 0.10 1/100 4242\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
            "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "performance\n",
            "sys/devices/system/cpu/cpu2/cpufreq/scaling_governor": "powersave\n",
            "sys/class/thermal/thermal_zone0/temp": "41500\n",
            "sys/class/thermal/thermal_zone1/temp": "63000\n",
        },
    )
    machine = describe_machine(tmp_path)
    assert machine.cpu_model == "AMD EPYC 7B13"
    assert machine.memory_bytes == 16384 * 1024
    assert machine.load_average == 1.25
    assert machine.governor == "performance,powersave"
    assert machine.temperature_c == 63.0


def test_an_arm_board_is_named_by_its_device_tree(tmp_path):
    write(
        tmp_path,
        {
            "proc/cpuinfo": "processor\t: 0\nBogoMIPS\t: 48.00\nCPU part\t: 0xd05\n",
            "proc/device-tree/model": "Radxa ROCK 5B\0",
        },
    )
    assert describe_machine(tmp_path).cpu_model == "Radxa ROCK 5B"


def test_what_cannot_be_read_is_none(tmp_path):
    machine = describe_machine(tmp_path)
    unread = (machine.cpu_model, machine.memory_bytes, machine.governor, machine.temperature_c, machine.load_average)
    assert unread == (None,) * 5
    assert machine.python.count(".") == 2


@pytest.mark.parametrize("text", ["", "-274000\n", "not a number", "999999999\n"])
def test_a_sensor_without_sense_is_left_out(tmp_path, text):
    write(tmp_path, {"sys/class/thermal/thermal_zone0/temp": text})
    assert read_temperature_c(tmp_path) is None
    write(tmp_path, {"sys/class/thermal/thermal_zone1/temp": "20000\n"})
    assert read_temperature_c(tmp_path) == 20.0


def test_a_sensor_that_fails_to_read_is_left_out(tmp_path):
    (tmp_path / "sys/class/thermal/thermal_zone0/temp").mkdir(parents=True)
    assert read_temperature_c(tmp_path) is None


def test_this_machine_can_be_described_as_json():
    described = json.loads(json.dumps(asdict(describe_machine()), allow_nan=False))
    assert described["logical_cores"] >= 1
