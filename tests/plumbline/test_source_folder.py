"""Reading from a folder: what is there, what is left out, and that nothing else can be read."""

from __future__ import annotations

import os

import pytest

from plumbline.errors import DatasetError
from plumbline.faults import UNSAFE_MEMBER, UNSAFE_NAME
from plumbline.sources import open_source


def fill(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def test_nested_files_are_found_and_hidden_ones_are_not(tmp_path):
    fill(tmp_path, "a.jpg", "deep/er/b.txt", ".git/c.jpg", "__MACOSX/d.jpg", "deep/.DS_Store", "__MACOSX2/e.jpg")
    source = open_source(str(tmp_path))
    assert dict(source.files()) == {"__MACOSX2/e.jpg": 15, "a.jpg": 5, "deep/er/b.txt": 13}
    assert not source.findings()


def test_nothing_but_what_was_listed_is_read(tmp_path):
    fill(tmp_path, "in/a.jpg", "out.txt", "in/.hidden")
    source = open_source(str(tmp_path / "in"))
    for name in ("../out.txt", str(tmp_path / "out.txt"), ".hidden", "./a.jpg", "b.jpg", ""):
        with pytest.raises(FileNotFoundError):
            source.read(name)
        with pytest.raises(FileNotFoundError):
            source.stamp(name)


def test_linked_folders_are_followed_and_loops_end(tmp_path):
    fill(tmp_path, "in/a/x.jpg", "elsewhere/y.jpg")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "also").symlink_to(tmp_path / "in" / "a")
    (tmp_path / "in" / "a" / "loop").symlink_to(tmp_path / "in")
    assert list(open_source(str(tmp_path / "in")).files()) == ["a/x.jpg", "also/x.jpg", "linked/y.jpg"]


def test_a_link_to_nothing_is_a_file_that_cannot_be_read(tmp_path):
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    source = open_source(str(tmp_path))
    assert dict(source.files()) == {"gone.jpg": -1}
    with pytest.raises(FileNotFoundError):
        source.read("gone.jpg")


def test_a_pipe_is_a_finding_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    source = open_source(str(tmp_path))
    assert not source.files()
    assert [f.code for f in source.findings()] == [UNSAFE_MEMBER]


def test_names_that_cannot_be_shown_are_findings(tmp_path):
    fill(tmp_path, "good.jpg", "Screenshot 9.41\u202fPM.png", "bell\x07.jpg")
    (tmp_path / os.fsdecode(b"latin-\xe9.jpg")).write_bytes(b"")
    source = open_source(str(tmp_path))
    assert list(source.files()) == ["Screenshot 9.41\u202fPM.png", "good.jpg"]
    findings = source.findings()
    assert [f.code for f in findings] == [UNSAFE_NAME] * 2
    assert "'bell\\x07.jpg'" in findings[0].message
    assert "'latin-\\xe9.jpg'" in findings[1].message
    for finding in findings:
        assert finding.source_file == tmp_path.as_posix()
        finding.message.encode()


@pytest.mark.parametrize("address", ["", "nowhere", "nowhere.zip", "nowhere.mp4"])
def test_what_is_not_there_is_refused(address, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError, match=r"expected s3://bucket/prefix; a \.zip.*; a video.*; a folder"):
        open_source(address)
