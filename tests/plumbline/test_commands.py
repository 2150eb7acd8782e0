"""The command `plumbline`: what it offers, and how it ends."""

from __future__ import annotations

import importlib

import pytest

from plumbline.commands import COMMANDS, main


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
