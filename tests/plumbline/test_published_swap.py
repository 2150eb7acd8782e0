"""A folder's change of place, with the process killed before each of its steps, and power cut after each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from plumbline import published_swap
from plumbline.published_swap import clear, put_in_place, restore, staging_of

# Python tells this hook each step before it is done: at the one asked for, the process ends as a kill ends it.
KILLED = """
import os, sys
from pathlib import Path
from plumbline.published_swap import put_in_place

to, at, can_exchange = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "True"
steps = []

def hook(event, arguments):
    if event == "ctypes.dlsym" and arguments[1] == "renameat2" and not can_exchange:
        raise AttributeError  # as in a C library without it
    if event.startswith(("os.", "shutil.", "ctypes.dlsym", "open")):
        steps.append(event)
        if len(steps) == at:
            os._exit(9)

sys.addaudithook(hook)
put_in_place(to)
os.write(1, str(len(steps)).encode())
os._exit(0)
"""
MOST_STEPS = 100


def make(folder: Path, content: str) -> Path:
    (folder / "simulator").mkdir(parents=True)
    for name in ("manifest.json", "model.bin", "simulator/model.rknn"):
        (folder / name).write_text(content)
    return folder


def content(folder: Path) -> set[str]:
    """What its files hold, which all hold the same."""
    assert sorted(p.name for p in folder.rglob("*")) == ["manifest.json", "model.bin", "model.rknn", "simulator"]
    return {path.read_text() for path in folder.rglob("*") if path.is_file()}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("can_exchange", [True, False])
def test_killed_before_any_step_the_old_or_the_new_folder_is_whole(tmp_path, can_exchange):
    was_absent, seen = [], set()
    for at in range(1, MOST_STEPS):
        place = tmp_path / str(at)
        to = make(place / "model", "old")
        make(staging_of(to), "new")
        command = [sys.executable, "-c", KILLED, str(to), str(at), str(can_exchange)]
        code = subprocess.run(command, check=False, stdout=subprocess.PIPE).returncode
        if not to.exists():
            was_absent.append(at)
        restore(to)
        (found,) = content(to)
        seen.add(found)
        if code == 0:
            assert names(place) == ["model"]
            break
        assert code == 9
        # The next fetch ends the work.
        if found == "old":
            put_in_place(to)
        clear(to)
        assert content(to) == {"new"}
        assert names(place) == ["model"]
    assert at > 10
    assert code == 0
    assert seen == {"old", "new"}
    assert len(was_absent) == (0 if can_exchange else 1)


def test_an_empty_folder_that_was_made_meanwhile_gives_way_to_the_old_one(tmp_path):
    make(tmp_path / ".model.replaced", "old")
    (tmp_path / "model").mkdir()
    restore(tmp_path / "model")
    assert content(tmp_path / "model") == {"old"}
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("is_empty", [True, False])
def test_where_there_was_none_the_new_one_stands(tmp_path, is_empty):
    to = tmp_path / "model"
    if is_empty:
        to.mkdir()
    make(staging_of(to), "new")
    put_in_place(to)
    assert content(to) == {"new"}
    assert names(tmp_path) == ["model"]


def test_what_cannot_be_put_there_leaves_the_old_one(tmp_path, monkeypatch):
    to = make(tmp_path / "model", "old")
    staging = make(staging_of(to), "new")
    rename = Path.rename

    def refuse(self, target):
        if self == staging:
            raise OSError("no space")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    monkeypatch.setattr(published_swap, "_exchange", lambda one, other: False)
    with pytest.raises(OSError, match="no space"):
        put_in_place(to)
    assert content(to) == {"old"}


def test_all_is_on_the_disk_before_it_takes_the_place_and_the_place_after(tmp_path, monkeypatch):
    """A power cut cannot be had here: what has to be so before it is."""
    to = make(tmp_path / "model", "old")
    staging = make(staging_of(to), "new")
    expected = {os.fspath(path) for path in (staging, *staging.rglob("*"))}
    flushed, sync = [], os.fsync

    def listen(descriptor):
        sync(descriptor)
        flushed.append((os.fspath(Path(f"/proc/self/fd/{descriptor}").readlink()), (to / "manifest.json").read_text()))

    monkeypatch.setattr(os, "fsync", listen)
    put_in_place(to)
    assert flushed[-1] == (os.fspath(tmp_path), "new")
    assert {path for path, _ in flushed[:-1]} == expected
    assert {there for _, there in flushed[:-1]} == {"old"}
