"""Images in shards: the same bytes come out, the same shards are made, and a new image changes its own shard alone."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumbline.errors import DatasetError
from plumbline.image_shards import INDEX, LARGEST, UNPACKED, cut, open_shards, pack

NAMES = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\"), min_size=1, max_size=60
).filter(lambda name: name not in (".", ".."))


def packed(folder: Path, content: dict[str, bytes], mean_size: int = 3) -> Path:
    """A dataset folder with these images in shards."""
    for path, data in content.items():
        (folder / "work" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "work" / path).write_bytes(data)
    pack(folder / "work", list(content), folder / "dataset", mean_size)
    return folder / "dataset"


def shards(root: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (root / "images").glob("*.tar")}


@given(content=st.dictionaries(NAMES.map("images/{}.png".format), st.binary(max_size=2000), max_size=20))
def test_what_goes_in_comes_out_and_every_tool_reads_it(tmp_path_factory, content):
    root = packed(tmp_path_factory.mktemp("shards"), content)

    found = open_shards(root)
    assert found is not None
    for path, data in content.items():
        assert found.data(path) == data
        assert found.unpacked(path).read_bytes() == data
        assert found.unpacked(path).suffix == ".png"
    told: dict[str, bytes] = {}
    for shard in (root / "images").glob("*.tar"):
        with tarfile.open(shard) as archive:
            told |= {entry.name: archive.extractfile(entry).read() for entry in archive}
    assert told == content


@given(names=st.lists(st.integers(0, 10**6), unique=True, max_size=300), mean_size=st.integers(1, 40))
def test_a_cut_holds_every_path_once_in_order_and_is_no_larger_than_said(names, mean_size):
    paths = [f"{name}.png" for name in names]

    parts = list(cut(paths, mean_size))

    assert [path for part in parts for path in part] == sorted(paths)
    assert all(1 <= len(part) <= LARGEST * mean_size for part in parts)
    assert list(cut(paths[::-1], mean_size)) == parts


def test_a_new_image_changes_one_shard_and_a_removed_one_too(tmp_path):
    content = {f"images/{number:04d}.png": bytes([number % 251]) * 100 for number in range(0, 2000, 2)}
    before = shards(packed(tmp_path / "a", content, 50))
    assert 12 < len(before) < 30

    more = shards(packed(tmp_path / "b", {**content, "images/1001.png": b"new"}, 50))
    fewer = shards(packed(tmp_path / "c", {path: data for path, data in content.items() if "1002" not in path}, 50))

    assert 1 <= len(set(more.items()) - set(before.items())) <= 2, "two where the new path cuts"
    assert len(set(fewer.items()) - set(before.items())) == 1
    assert shards(packed(tmp_path / "d", content, 50)) == before


def test_an_image_that_could_not_be_opened_is_left_out(tmp_path):
    (tmp_path / "work" / "images").mkdir(parents=True)
    (tmp_path / "work" / "images" / "a.png").write_bytes(b"a")

    pack(tmp_path / "work", ["images/a.png", "images/gone.png"], tmp_path / "dataset", 10)

    found = open_shards(tmp_path / "dataset")
    assert found is not None
    assert "images/a.png" in found
    assert "images/gone.png" not in found


def test_no_image_at_all_is_a_dataset_too(tmp_path):
    (tmp_path / "work").mkdir()
    assert pack(tmp_path / "work", [], tmp_path / "dataset", 10) == 0
    assert open_shards(tmp_path / "dataset") is not None


def test_a_damaged_and_a_missing_shard_are_told(tmp_path):
    root = packed(tmp_path, {"images/a.png": b"a" * 5000})
    found = open_shards(root)
    assert found is not None
    (shard,) = (root / "images").glob("*.tar")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:600] + b"b" + whole[601:])
    with pytest.raises(DatasetError, match=r"damaged at images/a\.png"):
        found.data("images/a.png")
    shard.unlink()
    with pytest.raises(DatasetError, match=r"cannot be read .*dvc checkout"):
        found.unpacked("images/a.png")
    assert not (tmp_path / UNPACKED).exists(), "nothing half-written"


def test_an_index_that_is_none_is_told_and_a_folder_without_one_has_loose_files(tmp_path):
    assert open_shards(tmp_path) is None
    (tmp_path / INDEX).parent.mkdir()
    (tmp_path / INDEX).write_bytes(b"x")
    with pytest.raises(DatasetError, match="not a readable index of shards"):
        open_shards(tmp_path)


def test_a_dataset_that_was_written_again_is_read_again(tmp_path):
    root = packed(tmp_path / "one", {"images/a.png": b"old"})
    first = open_shards(root)
    assert first is not None
    assert first.unpacked("images/a.png").read_bytes() == b"old"
    other = packed(tmp_path / "two", {"images/a.png": b"newer"})
    for path in (root / "images").iterdir():
        path.unlink()
    for path in (other / "images").iterdir():
        path.rename(root / "images" / path.name)
    again = open_shards(root)
    assert again is not None
    assert again.data("images/a.png") == b"newer"
    assert again.unpacked("images/a.png").read_bytes() == b"newer"
