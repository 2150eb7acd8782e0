"""Nobody ever sees half a file, and a hash depends on names and bytes alone."""

import json

import pytest

from plumbline.files import replacing, sha256_of, sha256_of_tree, write_json, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path):
    target = tmp_path / "new" / "a.txt"
    write_text(target, "one")
    write_text(target, "zwei ö")
    assert target.read_bytes() == "zwei ö".encode()
    assert names(target.parent) == ["a.txt"]


def test_a_folder_replaces_a_full_folder(tmp_path):
    target = tmp_path / "out"
    for name in ("old", "new"):
        with replacing(target) as folder:
            folder.mkdir()
            (folder / name).write_text(name)
    assert names(target) == ["new"]
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("before", [None, "whole"])
def test_a_failure_leaves_what_was_there(tmp_path, before):
    target = tmp_path / "a.txt"
    if before:
        target.write_text(before)

    def half(path):
        with replacing(path) as made:
            made.write_text("ha")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half(target)
    assert names(tmp_path) == (["a.txt"] if before else [])
    assert not before or target.read_text() == before


def test_a_failure_leaves_the_folder_that_was_there(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "kept").write_text("kept")

    def half(path):
        with replacing(path) as made:
            made.mkdir()
            (made / "new").write_text("ne")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half(target)
    assert names(target) == ["kept"]
    assert names(tmp_path) == ["out"]


def test_json_is_sorted_and_refuses_nan(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"b": 1, "a": [1.5]})
    assert path.read_text() == '{\n  "a": [\n    1.5\n  ],\n  "b": 1\n}\n'
    with pytest.raises(ValueError, match="Out of range"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text())["b"] == 1


def test_the_hash_of_a_tree_is_of_names_and_bytes(tmp_path):
    def tree(name, files):
        for file, text in files:
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return sha256_of_tree(tmp_path / name)

    files = [("a", "1"), ("b/c", "2")]
    first = tree("first", files)
    assert tree("second", files[::-1]) == first
    assert tree("renamed", [("a", "1"), ("b/d", "2")]) != first
    assert tree("changed", [("a", "1"), ("b/c", "3")]) != first


def test_hash_of_one_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1.
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
