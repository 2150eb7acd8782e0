"""Clean clones of a commit: what is in them, what stays from run to run, and who may be in one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from git_project import GitProject, output

from pipelines.clones import clean_clone, local_cache
from pipelines.mirror import CloneError, Mirror
from pipelines.run_stage import FLOW_ROOT

REPRO = (sys.executable, "-m", "dvc", "repro", "--quiet")
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def source(tmp_path) -> GitProject:
    return GitProject(tmp_path)


@pytest.fixture
def home(tmp_path) -> Path:
    return tmp_path / "home"


def test_a_clone_is_the_commit_and_the_source_is_not_touched(source, home):
    source.write({"data/photos.txt": "dirty\n", "new.txt": "new", "out/photos.txt": "mine"})
    before = source.git("status", "--porcelain", "--ignored")

    with clean_clone(home, str(source.root), "main") as place:
        assert (place / "data/photos.txt").read_text() == "a\n"
        assert not (place / "new.txt").exists()
        assert output(place, "git", "status", "--porcelain") == ""
        output(place, *REPRO)
        assert json.loads((place / "metrics.json").read_text()) == {"photos": 1}

    assert source.git("status", "--porcelain", "--ignored") == before
    assert source.git("branch", "--format=%(refname:short)") == "main"


@pytest.mark.parametrize("name", ["main", "topic/x", "v1", "HEAD", "refs/pull/5/head", "full", "short", "main~1"])
def test_a_revision_is_a_branch_a_tag_a_ref_or_a_hash(source, home, name):
    first = source.first
    source.write({"data/photos.txt": "a\nb\n"})
    second = source.commit("second")
    source.git("tag", "v1", first)
    source.git("branch", "topic/x", first)
    source.git("branch", "v1", second)  # a branch comes before a tag of its name
    source.git("update-ref", "refs/pull/5/head", first)
    names = {"full": first, "short": first[:8]}
    expected = second if name in ("main", "HEAD", "v1") else first

    with clean_clone(home, str(source.root), names.get(name, name)) as place:
        assert output(place, "git", "rev-parse", "HEAD") == expected


def test_a_branch_that_has_moved_is_another_clone(source, home):
    with clean_clone(home, str(source.root), "main") as first:
        pass
    source.write({"data/photos.txt": "a\nb\n"})
    source.git("checkout", "--quiet", "--orphan", "other")
    source.commit("history written anew")
    source.git("branch", "--force", "main", "other")

    with clean_clone(home, str(source.root), "main") as second:
        assert (second / "data/photos.txt").read_text() == "a\nb\n"
    assert second != first


def test_a_commit_that_is_here_needs_no_repository(source, home):
    with clean_clone(home, str(source.root), "main"):
        pass
    (source.root / ".git").rename(source.root / ".gone")

    with clean_clone(home, str(source.root), source.first) as place:
        assert (place / "data/photos.txt").is_file()
    with pytest.raises(CloneError, match="cannot be fetched"), clean_clone(home, str(source.root), "main"):
        pass


@pytest.mark.parametrize("name", ["nothing", "0123456789", "f" * 40, "main:data", "+main", "@{-1}", "--all", "a b", ""])
def test_what_is_no_commit_is_one_clear_line(source, home, name):
    with pytest.raises(CloneError) as caught, clean_clone(home, str(source.root), name):
        pass
    text = str(caught.value)
    assert "expected a branch, tag or commit" in text
    assert "correct the" in text
    assert "\n" not in text


def test_a_repository_that_is_none_is_told_without_its_password(tmp_path, home):
    with pytest.raises(CloneError) as caught, clean_clone(home, "http://me:secret@127.0.0.1:1/a.git", "main"):
        pass
    assert str(caught.value).startswith("http://127.0.0.1:1/a.git: this repository cannot be fetched: ")
    assert "secret" not in str(caught.value)
    with pytest.raises(CloneError, match="cannot be fetched"), clean_clone(home, str(tmp_path / "none"), "main"):
        pass


def test_a_repository_without_dvc_is_told(source, home):
    source.git("rm", "--quiet", "-r", ".dvc")
    source.commit("no DVC")
    with pytest.raises(CloneError, match="no DVC project"), clean_clone(home, str(source.root), "main"):
        pass


def test_the_second_run_of_a_commit_finds_results_and_checkpoints_and_nothing_else(source, home):
    with clean_clone(home, str(source.root), "main") as place:
        output(place, *REPRO)
        (place / ".cache").mkdir()
        (place / ".cache/last.pt").write_text("half")
        (place / "params.yaml").write_text("log: /elsewhere\n")
        (place / "data/photos.txt").unlink()
        (place / "dvc.yaml").unlink()
        (place / "dvc.yaml").mkdir()
        (place / "stray.txt").write_text("stray")
        output(place, "git", "init", "--quiet", "nested")
        (place / ".git/index.lock").touch()  # as a killed git leaves it
    source.ran()

    with clean_clone(home, str(source.root), "main") as again:
        assert again == place
        assert (place / ".cache/last.pt").read_text() == "half"
        assert output(place, "git", "status", "--porcelain").split("\n") == ["?? dvc.lock", "?? metrics.json"]
        output(place, *REPRO)
        assert source.ran() == []


def test_a_half_written_lock_and_a_broken_clone_are_made_anew(source, home):
    with clean_clone(home, str(source.root), "main") as place:
        output(place, *REPRO)
        (place / "dvc.lock").write_text("schema: '2.0'\nstages:\n  copy:\n    cmd: [")
    with clean_clone(home, str(source.root), "main"):
        output(place, *REPRO)
    (place / ".git/HEAD").unlink()
    with clean_clone(home, str(source.root), "main"):
        assert output(place, "git", "status", "--porcelain") == ""


@pytest.mark.parametrize("left", ['{"read": {"/a": [{"pi', '{"write": {"OUT": {"pid": PID, "cmd": "dvc repro"}}}'])
def test_what_a_loss_of_power_leaves_of_dvc_is_put_right(source, home, left):
    with clean_clone(home, str(source.root), "main") as place:
        entry = left.replace("OUT", str(place / "out/photos.txt")).replace("PID", str(os.getpid()))
        (place / ".dvc/tmp").mkdir(exist_ok=True)
        (place / ".dvc/tmp/rwlock").write_text(entry)
    with clean_clone(home, str(source.root), "main"):
        output(place, *REPRO)


def test_a_stage_that_has_outlived_its_killed_run_is_ended(source, home):
    with clean_clone(home, str(source.root), "main") as place:
        pass
    environment = {**os.environ, FLOW_ROOT: str(place.resolve())}
    training = subprocess.Popen(["sleep", "600"], env=environment, start_new_session=True)
    try:
        with clean_clone(home, str(source.root), "main"):
            assert training.wait(0) == -signal.SIGINT
    finally:
        training.kill()
        training.wait()


def test_locks_of_a_killed_git_are_removed(source, home):
    source.git("branch", "topic/x")
    with clean_clone(home, str(source.root), "main") as place:
        mirror = place.parent / "mirror.git"
    for name in ("packed-refs.lock", "config.lock", "refs/heads/main.lock", "refs/heads/topic/x.lock"):
        for folder in (mirror, place / ".git"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
    for folder in (mirror, place / ".git"):
        (folder / "objects/info").mkdir(exist_ok=True)
        (folder / "objects/info/x.lock").touch()
    source.write({"data/photos.txt": "a\nb\n"})
    source.git("branch", "--delete", "--force", "topic/x")
    second = source.commit("second")

    assert Mirror.of(home, str(source.root)).fetched("main") == second
    with clean_clone(home, str(source.root), source.first) as again:
        assert again == place
        assert not [path for path in (place / ".git").rglob("*.lock") if "objects" not in path.parts]
    assert (mirror / "objects/info/x.lock").exists()


def test_clones_share_one_cache(source, home):
    with clean_clone(home, str(source.root), "main") as first:
        output(first, *REPRO)
    source.write({"README": "no stage reads this"})
    source.commit("second")
    assert sorted(source.ran()) == ["copies", "counts"]

    with clean_clone(home, str(source.root), "main") as second:
        assert second != first
        output(second, *REPRO)
    assert source.ran() == []
    assert (home / "cache/files/md5").is_dir()


def test_remotes_of_a_local_repository_are_reached_from_its_clone(source, home, tmp_path):
    source.dvc("remote", "add", "--default", "near", "../storage")  # beside the project
    source.commit("remote")
    source.dvc("remote", "modify", "--local", "near", "verify", "true")
    source.dvc("remote", "add", "--local", "private", "s3://bucket/x")
    source.dvc("remote", "modify", "--local", "private", "secret_access_key", "hidden")
    source.dvc("config", "--local", "cache.dir", "../elsewhere")

    with clean_clone(home, str(source.root), "main") as place:
        output(place, *REPRO)
        output(place, sys.executable, "-m", "dvc", "push", "--quiet")
        assert (tmp_path / "storage/files/md5").is_dir()
        config = place / ".dvc/config.local"
        assert "hidden" in config.read_text()
        assert config.stat().st_mode & 0o077 == 0
        assert "secret_access_key" not in output(place, "git", "status", "--porcelain", "-v", "-v")
    assert (home / "cache/files/md5").is_dir()
    assert not (tmp_path / "elsewhere").exists()


def test_the_cache_of_a_local_project_can_be_the_clones(source, home, tmp_path):
    source.dvc("repro", "--quiet")
    source.commit("results")
    source.ran()
    cache = local_cache(str(source.root))

    with clean_clone(home, str(source.root), "main", cache=cache) as place:
        output(place, *REPRO)
    assert source.ran() == []
    assert local_cache(str(tmp_path)) is None


def test_a_second_run_is_refused_or_waits(source, home):
    told: list[str] = []
    entered = threading.Event()

    def second() -> None:
        with clean_clone(home, str(source.root), "main", wait=True, on_wait=told.append):
            entered.set()

    with clean_clone(home, str(source.root), "main") as place:
        with pytest.raises(CloneError, match="a run is in this clone already"):
            clean_clone(home, str(source.root), "main").__enter__()
        waiter = threading.Thread(target=second)
        waiter.start()
        assert not entered.wait(1.5)
    waiter.join(60)
    assert entered.is_set()
    assert told == [f"waiting for another run in {place} to end"]


def test_an_error_of_the_run_itself_comes_through(source, home):
    with pytest.raises(BlockingIOError), clean_clone(home, str(source.root), "main", wait=True):
        raise BlockingIOError


def test_a_killed_run_leaves_no_lock(source, home):
    program = (
        "import sys, os, signal, pathlib\nfrom pipelines.clones import clean_clone\n"
        "with clean_clone(pathlib.Path(sys.argv[1]), sys.argv[2], 'main'): os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(home), str(source.root)], cwd=ROOT)
    assert killed.returncode == -9
    with clean_clone(home, str(source.root), "main") as place:
        assert place.is_dir()


def test_old_clones_go_but_none_that_is_in_use(source, home):
    places = []
    with clean_clone(home, str(source.root), "main", keep=1) as used:
        os.utime(used.with_suffix(".lock"), (0, 0))
        for number in range(3):
            source.write({"data/photos.txt": f"{number}\n"})
            source.commit(f"{number}")
            with clean_clone(home, str(source.root), "main", keep=2) as place:
                places.append(place)
        assert used.is_dir()
        assert [place.is_dir() for place in places] == [False, True, True]
    with clean_clone(home, str(source.root), "main", keep=1) as place:
        assert [each.name for each in place.parent.iterdir() if each.is_dir()] in (
            ["mirror.git", place.name],
            [place.name, "mirror.git"],
        )


def test_old_clones_go_before_a_new_one_is_made(source, home):
    with clean_clone(home, str(source.root), "main") as old:
        pass
    source.git("rm", "--quiet", "-r", ".dvc")
    source.commit("cannot be made a clone")
    with pytest.raises(CloneError, match="no DVC project"), clean_clone(home, str(source.root), "main", keep=1):
        pass
    assert not old.exists()


def test_the_login_of_this_machine_is_used_for_the_repository_without_it(home, monkeypatch):
    full = "https://me:secret@127.0.0.1:1/a.git"
    monkeypatch.setenv("PLUMBLINE_REPOSITORY", full)
    mirror = Mirror.of(home, "https://127.0.0.1:1/a.git")
    assert mirror.repository == full
    assert Mirror.of(home, "https://127.0.0.1:1/b.git").repository == "https://127.0.0.1:1/b.git"
    monkeypatch.delenv("PLUMBLINE_REPOSITORY")
    assert Mirror.of(home, "https://127.0.0.1:1/a.git").folder == mirror.folder


def test_a_mirror_reads_a_commit(source, home):
    mirror = Mirror.of(home, str(source.root))
    commit = mirror.fetched("main")
    assert mirror.read(commit, "data/photos.txt") == "a"
    assert mirror.object_at(commit, "data") == source.git("rev-parse", "HEAD:data")
    assert mirror.object_at(commit, "none") is None
    with pytest.raises(CloneError, match="none"):
        mirror.read(commit, "none")
