"""What counts as new data, and that it is told once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from git_project import GitProject
from object_store import fill_bucket, object_store

from pipelines.watch_data import AGAIN_AFTER_S, Memory, Sight, WatchError, look, read_memory


@pytest.fixture
def home(tmp_path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "1.jpg").write_bytes(b"1")
    return folder


def seen(project: GitProject, home: Path) -> str:
    return look(home, str(project.root), "main").fingerprint


def test_a_folder_differs_with_every_file(tmp_path, home, photos):
    project = GitProject(tmp_path, source=str(photos))
    found = [seen(project, home)]
    assert seen(project, home) == found[0]

    (photos / "a" / "2.jpg").write_bytes(b"2")
    found.append(seen(project, home))
    (photos / "a" / "2.jpg").write_bytes(b"22")
    found.append(seen(project, home))
    os.utime(photos / "a" / "2.jpg", (1, 1))
    found.append(seen(project, home))
    (photos / "a" / "2.jpg").rename(photos / "a" / "3.jpg")
    found.append(seen(project, home))
    assert len(set(found)) == 5
    (photos / "a" / "3.jpg").unlink()
    assert seen(project, home) == found[0]
    assert look(home, str(project.root), "main").words == "1 file"


def test_a_folder_that_is_empty_or_gone_is_no_news(tmp_path, home, photos):
    project = GitProject(tmp_path, source=str(photos))
    (photos / "a" / "1.jpg").unlink()
    with pytest.raises(WatchError, match="holds no file now"):
        seen(project, home)
    (photos / "a").rmdir()
    photos.rmdir()
    with pytest.raises(WatchError, match="there is nothing now"):
        seen(project, home)


def test_an_archive_differs_with_its_content(tmp_path, home):
    archive = tmp_path / "photos.zip"
    archive.write_bytes(b"x")
    project = GitProject(tmp_path, source=str(archive))
    first = seen(project, home)
    archive.write_bytes(b"xy")
    assert seen(project, home) != first


def test_what_is_in_git_differs_with_the_branch_alone(tmp_path, home):
    project = GitProject(tmp_path, source="./data")
    first = seen(project, home)
    project.write({"data/new.txt": "n"})
    assert seen(project, home) == first  # not committed
    project.write({"README": "r"})
    project.git("add", "README")
    project.git("-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-q", "-m", "another file")
    assert seen(project, home) == first
    project.commit("data")
    assert seen(project, home) != first


def test_what_dvc_tracks_differs_with_its_dvc_file(tmp_path, home):
    project = GitProject(tmp_path, source="photos/set")
    project.write({"photos/set/1.txt": "1"})
    project.dvc("add", "--quiet", "photos")
    project.commit("tracked")
    first = seen(project, home)
    project.write({"photos/set/2.txt": "2"})
    project.dvc("add", "--quiet", "photos")
    project.commit("more")
    assert seen(project, home) != first


def test_what_no_clone_would_have_is_told(tmp_path, home):
    project = GitProject(tmp_path, source="../elsewhere")
    with pytest.raises(WatchError, match="expected an absolute path"):
        seen(project, home)
    project.write({"params.yaml": "a: 1\n"})
    project.commit("no source")
    with pytest.raises(WatchError, match="no dataset\\.source"):
        seen(project, home)


def test_a_bucket_differs_with_every_object(tmp_path, home):
    import boto3

    project = GitProject(tmp_path, source="s3://photos/set")
    with object_store():
        fill_bucket("photos", {"set/1.jpg": b"1", "other/1.jpg": b"1"})
        client = boto3.session.Session().client("s3")
        first = seen(project, home)
        client.put_object(Bucket="photos", Key="other/2.jpg", Body=b"2")
        assert seen(project, home) == first
        client.put_object(Bucket="photos", Key="set/1.jpg", Body=b"2")  # as long as before
        changed = seen(project, home)
        assert changed != first
        client.put_object(Bucket="photos", Key="set/1.jpg", Body=b"1")
        assert seen(project, home) == first
    with pytest.raises(WatchError, match="s3://photos/set"):
        seen(project, home)


def tell(memory: Memory, looks: str, *, runs: bool = True) -> tuple[Memory, str]:
    """Look at fingerprints a minute apart; what was told. With `runs`, each event has its run by the next look."""
    told, now = "", 1000.0
    for fingerprint in looks:
        memory, news = memory.after(Sight("photos", fingerprint, ""), runs and bool(memory.told), now)
        told += fingerprint if news else ""
        now += 60
    return memory, told


@pytest.mark.parametrize(
    ("looks", "told"),
    [
        ("aaaa", ""),
        ("ab", ""),  # may still be being copied
        ("abb", "b"),
        ("abbbbb", "b"),
        ("abcdeeee", "e"),  # copied over four looks
        ("abbaa", "ba"),
        ("aba", ""),
        ("abbcc", "bc"),
    ],
)
def test_news_is_told_once_two_looks_agree(looks, told):
    assert tell(Memory(), looks)[1] == told


def test_a_restart_neither_misses_nor_repeats(tmp_path):
    memory, told = tell(Memory(), "abb")
    assert told == "b"
    assert tell(memory, "bbb")[1] == ""
    assert tell(memory, "bcc")[1] == "c"  # came while it was down
    waiting, _ = tell(Memory(), "ab")
    assert tell(waiting, "b")[1] == "b"


def test_what_no_run_came_of_is_told_again():
    memory, told = tell(Memory(), "abb", runs=False)
    assert told == "b"
    sight = Sight("photos", "b", "")
    assert not memory.after(sight, False, memory.told_at + AGAIN_AFTER_S - 1)[1]
    assert memory.after(sight, False, memory.told_at + AGAIN_AFTER_S)[1]
    assert not memory.after(sight, True, memory.told_at + AGAIN_AFTER_S)[1]


def test_a_memory_that_cannot_be_read_begins_anew(tmp_path):
    path = tmp_path / "memory.json"
    assert read_memory(path) == Memory()
    path.write_text("{")
    assert read_memory(path) == Memory()
    path.write_text('{"other": 1}')
    assert read_memory(path) == Memory()
