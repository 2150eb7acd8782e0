"""The command `plumbline`: what it offers, and how it ends."""

from __future__ import annotations

import importlib
from functools import partial

import pytest

from plumbline.commands import COMMANDS, main
from plumbline.manifest import ANNOTATIONS_SCHEMA, FINDINGS_SCHEMA, IMAGES_SCHEMA, Dataset, table, write_dataset

SCHEMAS = (IMAGES_SCHEMA, ANNOTATIONS_SCHEMA, FINDINGS_SCHEMA)


def test_the_help_names_every_command_with_a_line_of_its_own(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    for name in COMMANDS:
        (line,) = (line for line in lines if line.split()[:1] == [name])
        assert len(line.split()) > 3


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help(name, capsys):
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: plumbline {name} ")
    assert importlib.import_module(COMMANDS[name]).__doc__.partition("\n")[0] in text
    assert max(len(line) for line in text.splitlines()) <= 120


@pytest.mark.parametrize("argv", [[], ["convince"], ["convert"], ["diff", "a"], ["convert", "a", "b", "--to", "voc9"]])
def test_what_is_typed_wrongly_ends_with_2(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert "usage: plumbline" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["convert", "{}/none", "{}/out", "--to", "voc"], ["diff", "{}/none", "{}/none"]])
def test_a_fault_that_can_be_mended_is_one_line_and_1(argv, tmp_path, capsys):
    assert main([word.format(tmp_path) for word in argv]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith(f"error: {tmp_path}/none: ")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_one_line_and_1(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for side in "ab":
        write_dataset(Dataset(*map(partial(table, []), SCHEMAS), ("cat",), tmp_path), tmp_path)
        (tmp_path / side).mkdir()
        for name in ("images", "annotations", "findings"):
            (tmp_path / f"{name}.parquet").rename(tmp_path / side / f"{name}.parquet")
    argv = ["diff", str(tmp_path / "a"), str(tmp_path / "b"), "--json", str(tmp_path / "file" / "x.json")]
    assert main(argv) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path}/file")
    assert line.endswith(", expected a place to write to; name another one")
