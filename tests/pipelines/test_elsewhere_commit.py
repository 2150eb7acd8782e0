from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pipelines.elsewhere_commit import CommitError, commit_for_workers, repository_for_workers


@pytest.fixture(autouse=True)
def named(monkeypatch):
    monkeypatch.delenv("PLUMBLINE_REPOSITORY", raising=False)
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "a")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "a@b.c")


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def root(tmp_path) -> Path:
    """A clone whose one commit is in its origin."""
    git(tmp_path, "init", "--quiet", "--bare", "-b", "main", "origin.git")
    git(tmp_path, "clone", "--quiet", "origin.git", "here")
    root = tmp_path / "here"
    files = {"work.py": "1", "dvc.lock": "a", ".gitignore": "/data\n", "scores.json": "{}"}
    for name, text in files.items():
        (root / name).write_text(text)
    push(root)
    return root


def push(root: Path) -> None:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "-m", "as it is")
    git(root, "push", "--quiet", "origin", "HEAD:main")


def test_what_dvc_writes_need_not_be_as_in_the_commit(root):
    (root / "dvc.lock").write_text("b")
    (root / "scores.json").write_text("1")
    (root / "plots").mkdir()
    (root / "plots" / "new.csv").write_text("1")
    (root / "note.txt").write_text("nobody reads it")
    commit = commit_for_workers(root, ["scores.json", "plots"], ["work.py"])
    assert commit.commit == git(root, "rev-parse", "HEAD")
    assert commit.repository == os.fspath((root / "../origin.git").resolve())
    assert commit.folder == ""


def test_changed_code_is_refused(root):
    (root / "work.py").write_text("2")
    with pytest.raises(CommitError, match=r"^work.py: not as in commit .*; commit and push$"):
        commit_for_workers(root, ["scores.json"], [])


def test_a_staged_change_is_refused(root):
    (root / "work.py").write_text("2")
    git(root, "add", "work.py")
    with pytest.raises(CommitError, match=r"^work.py: not as in commit"):
        commit_for_workers(root, [], [])


@pytest.mark.parametrize("name", ["new.py", "data/raw.txt"])
def test_what_the_stage_reads_must_be_in_the_commit(root, name):
    (root / "data").mkdir()
    (root / name).write_text("1")
    with pytest.raises(CommitError, match=rf"^{name}: not as in commit"):
        commit_for_workers(root, [], ["work.py", name])


def test_a_folder_that_the_stage_reads_may_be_in_the_commit(root):
    (root / "package").mkdir()
    (root / "package" / "module.py").write_text("1")
    push(root)
    assert commit_for_workers(root, [], ["package", "work.py"]).folder == ""
    (root / "package" / "other.py").write_text("1")
    with pytest.raises(CommitError, match=r"^package/other.py: not as in commit"):
        commit_for_workers(root, [], ["package"])


def test_a_commit_must_be_pushed(root):
    (root / "work.py").write_text("2")
    git(root, "commit", "--quiet", "-am", "not pushed")
    with pytest.raises(CommitError, match=r"commit \w{8} is not there.*`git push`$"):
        commit_for_workers(root, [], [])
    git(root, "push", "--quiet", "origin", "HEAD:refs/pull/5/head")
    commit_for_workers(root, [], [])


def test_somebody_may_have_pushed_on_top_of_it(root, tmp_path):
    git(tmp_path, "clone", "--quiet", "origin.git", "other")
    (tmp_path / "other" / "work.py").write_text("3")
    push(tmp_path / "other")
    commit_for_workers(root, [], [])


def test_a_project_in_a_folder_of_the_repository(root):
    (root / "sub").mkdir()
    (root / "sub" / "work.py").write_text("1")
    push(root)
    assert commit_for_workers(root / "sub", [], ["work.py"]).folder == "sub"
    (root / "work.py").write_text("another project's")
    commit_for_workers(root / "sub", [], ["work.py"])


def test_a_clone_of_a_clone_leads_to_the_first_repository(root, tmp_path):
    git(root, "remote", "set-url", "origin", "https://me:secret@example.com/team/line.git")
    git(tmp_path, "clone", "--quiet", "here", "there")
    assert repository_for_workers(tmp_path / "there") == "https://me:secret@example.com/team/line.git"


def test_without_an_origin_nothing_can_be_fetched(root):
    git(root, "remote", "remove", "origin")
    with pytest.raises(CommitError, match=r"no git remote 'origin'.*PLUMBLINE_REPOSITORY$"):
        commit_for_workers(root, [], [])


def test_a_password_stays_here(root, monkeypatch):
    monkeypatch.setenv("PLUMBLINE_REPOSITORY", "https://me:secret@127.0.0.1:1/line.git")
    with pytest.raises(CommitError, match=r"^https://127.0.0.1:1/line.git: cannot be read") as error:
        commit_for_workers(root, [], [])
    assert "secret" not in str(error.value)


def test_no_repository(tmp_path):
    with pytest.raises(CommitError, match="not a git repository with a commit"):
        commit_for_workers(tmp_path, [], [])
