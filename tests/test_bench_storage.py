"""`make bench-storage` runs, tiny, and what it counts adds up; its times are not looked at."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(autouse=True)
def _scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def data():
    from storage_layouts import Collection, make_images

    images = tuple(make_images(1200, 300))
    return Collection(images, images)


def contents(folder: Path) -> dict[str, bytes]:
    """Return image name -> bytes of what stands in a folder, of each image the latest version."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.suffix == ".tar":
            with tarfile.open(path) as archive:
                # The newest stands last, within a shard and among them.
                found |= {entry.name.rpartition(".")[0]: archive.extractfile(entry).read() for entry in archive}
        else:
            found[path.relative_to(folder).as_posix()] = path.read_bytes()
    return found


def run_quick(folder: Path, parts: str) -> tuple[dict, str]:
    """Return what `--quick` writes and prints."""
    out = folder / "bench.json"
    command = [sys.executable, BENCHMARKS / "storage.py", "--quick", "--parts", parts, "--work", folder, "--out", out]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    results = json.loads(out.read_text())
    assert ",".join(results) == parts
    assert all(part["quick"] and part["machine"]["logical_cores"] for part in results.values())
    return {name: part["found"] for name, part in results.items()}, done.stdout


def test_a_push_and_a_fetch_are_counted(tmp_path):
    results, _ = run_quick(tmp_path, "jobs,reading")
    loose, shards = results["jobs"]
    assert (loose["layout"], shards["layout"], loose["num_images"]) == ("loose", "arrival", 60)
    # DVC adds a list of the folder's files.
    assert (loose["push"]["requests"]["PUT"], shards["push"]["requests"]["PUT"]) == (61, 2)
    assert loose["fetch"]["requests"]["GET"] - shards["fetch"]["requests"]["GET"] == 60 - 1
    assert loose["push"]["refused"] == loose["fetch"]["refused"] == 0
    assert results["reading"]["small"]["arrival"]["view"]["wall_ms_each"][0] > 0


@pytest.mark.long
def test_the_counts_of_whole_weeks_add_up(tmp_path):
    results, printed = run_quick(tmp_path, "local,remote")
    local, remote = results["local"]["small"], results["remote"]["small"]
    assert (local["loose_hardlink"]["files_written"], local["shards"]["files_written"]) == (600, 2)
    disk, copied = local["loose_hardlink"]["disk_bytes"], local["shards"]["disk_bytes"]
    assert disk["workspace"] >= local["loose_hardlink"]["bytes_written"]
    assert disk["both"] - disk["workspace"] < disk["workspace"] / 4  # links: the cache has little of its own
    # Where the disk can share bytes between copies, it is not seen here.
    assert copied["both"] == copied["workspace"] + copied["cache"]
    for layout, num_files in (("loose", 600), ("arrival", 2)):
        first, changed = remote[layout]["first"], remote[layout]["changed"]
        assert first["push"]["requests"]["PUT"] == first["files_written"] + 1 == num_files + 1
        assert first["bytes_written"] < first["push"]["bytes_sent"] < first["bytes_written"] + 200 * (num_files + 1)
        assert first["fetch"]["bytes_received"] > first["bytes_written"]
        assert "PUT" not in first["push_again"]["requests"]
        assert changed["push"]["requests"]["PUT"] == changed["files_written"] + 1
    assert remote["loose"]["changed"]["files_written"] == 3
    assert remote["arrival"]["changed"]["files_written"] == 1
    assert "| first: objects pushed | 601 | 3 |" in printed


def test_parts_that_are_not_run_keep_their_figures(tmp_path):
    from storage import main

    out = tmp_path / "bench.json"
    out.write_text('{"remote": {"found": {}, "scale": {}}}')
    assert main(["--quick", "--parts", "reading", "--work", str(tmp_path), "--out", str(out)]) == 0
    assert set(json.loads(out.read_text())) == {"remote", "reading"}


@pytest.mark.parametrize("layout", ["loose", "arrival", "name", "name_cut"])
def test_a_layout_holds_the_images_after_every_change(tmp_path, data, layout):
    from storage import CASES, make_cases
    from storage_layouts import Collection, write

    if layout == "loose":
        data = Collection(data.images[:100], data.images[:100])
    folder = tmp_path / layout
    write(layout, data, folder)
    for name, case in make_cases(7, 300).items():
        before, data = data, case(data)
        written = write(layout, data, folder, before)
        found = contents(folder)
        expected = {one.name: one.data() for one in data.images}
        assert {key: found[key] for key in expected} == expected
        assert layout == "arrival" or set(found) == set(expected)
        # Written in one go, it is the same folder: the layout does not depend on what was there before.
        write(layout, data, tmp_path / name)
        assert {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == {
            path.name: path.read_bytes() for path in (tmp_path / name).rglob("*") if path.is_file()
        }
        if name == "removed" and layout in {"loose", "arrival"}:
            assert written == {"files_written": 0, "bytes_written": 0, "files_removed": 7 * (layout == "loose")}
        else:
            assert written["files_written"] > 0
    assert set(make_cases(7, 300)) == set(CASES)


def test_a_batch_that_comes_last_leaves_the_other_shards_as_they_are(data):
    from storage_layouts import LAYOUTS, make_images

    def shards_changed(layout, batch):
        old, new = LAYOUTS[layout](data), LAYOUTS[layout](data.add(make_images(5, 300, batch, seed=1)))
        return sum(old.get(name) != images for name, images in new.items())

    assert shards_changed("arrival", "") == shards_changed("arrival", "zz") == 1
    assert shards_changed("name", "zz") == shards_changed("name_cut", "zz") == 1
    assert shards_changed("name", "00") == 3  # all shards shift
    assert shards_changed("name_cut", "00") == 1


def test_reading_by_offset_gives_the_images(tmp_path, data):
    from storage_layouts import Reader, places, tar

    images = data.images[:5]
    (tmp_path / "000000.tar").write_bytes(tar(images))
    reader = Reader()
    assert [reader.read(place) for place in places(tmp_path)] == [one.data() for one in images]
    reader.close()
    assert tar(images) == tar(images)
    with tarfile.open(fileobj=io.BytesIO(tar(images))) as archive:
        assert archive.getnames() == [f"{one.name}.0" for one in images]


def test_a_command_that_fails_says_why(tmp_path):
    from storage_project import Project

    with pytest.raises(SystemExit, match="error: dvc commit -f in "):
        Project(tmp_path / "project").dvc("commit", "-f")


def test_the_store_counts_and_waits():
    import urllib.request

    from counting_store import CountingStore

    with CountingStore() as store:
        store.make_bucket("bucket")
        store.counts()
        put = urllib.request.Request(f"{store.url}/bucket/key", data=b"12345", method="PUT")
        urllib.request.urlopen(put).close()
        # moto does not look at the signature, but at whether there is one.
        signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=testing/20260101/us-east-1/s3/aws4_request"}
        urllib.request.urlopen(urllib.request.Request(f"{store.url}/bucket/key", headers=signed)).close()
        urllib.request.urlopen(f"{store.url}/bucket?list-type=2").close()
        counts = store.counts()
        assert (counts["PUT"], counts["GET"], counts["LIST"], counts["bytes_in"]) == (1, 1, 1, 5)
        assert counts["bytes_out"] > 5
        assert not store.counts()
