"""Lineage: the commit that is checked out, and hashes that change when what they stand for does."""

from __future__ import annotations

import subprocess

from plumbline.lineage import git_commit, hash_of_hashes, toolchain


def git(folder, *arguments):
    who = ("-c", "user.name=test", "-c", "user.email=test@example.com")
    done = subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_commit_and_dirt(tmp_path):
    assert git_commit(tmp_path) == ""
    git(tmp_path, "init", "-q")
    (tmp_path / "reports").mkdir()
    for name in ("code.py", "dvc.lock", "reports/metrics.json"):
        (tmp_path / name).write_text("1")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "one")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert git_commit(tmp_path) == commit
    (tmp_path / "new.txt").write_text("untracked files do not count, but for code")
    (tmp_path / "dvc.lock").write_text("2")
    (tmp_path / "reports/metrics.json").write_text("2")
    assert git_commit(tmp_path) == commit
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "new.py").write_text("")
    assert git_commit(tmp_path) == f"{commit}-dirty"
    (tmp_path / "stages" / "new.py").unlink()
    (tmp_path / "code.py").write_text("2")
    assert git_commit(tmp_path) == f"{commit}-dirty"


def test_order_counts_in_a_hash_of_hashes():
    assert hash_of_hashes(["a", "b"]) != hash_of_hashes(["b", "a"])
    assert hash_of_hashes(["ab"]) != hash_of_hashes(["a", "b"])


def test_versions_of_what_is_installed():
    versions = toolchain(["numpy", "no-such-package"])
    assert set(versions) == {"python", "numpy"}
