"""DVC's model registry (GTO): a version is an annotated git tag ``<model>@v1.2.3`` on the commit it was published from.

Then ``gto show`` lists it, and ``dvc artifacts get . <model> --rev v1.2.3`` brings its artifacts from DVC's remote.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from plumbline.published import Manifest, PublishError, to_bytes

if TYPE_CHECKING:
    from gto.base import Version


def check_registry(root: Path, model: str, version: str, commit: str) -> None:
    """Refuse, before anything is written, what could not be registered in the end.

    Raises:
        PublishError: dvc.yaml has no such artifact, the version is another commit's or the commit another version's, or
            git has no name to sign a tag with.
    """
    if model not in _artifacts(root):
        raise PublishError(
            f"{root / 'dvc.yaml'}: no artifact {model!r}, expected publish.model of params.yaml in its section"
            f" `artifacts`; add it: `artifacts: {{{model}: {{path: models/artifacts, type: model}}}}`"
        )
    for found in _versions(root, model):
        if found.version == version and found.commit_hexsha != commit:
            raise PublishError(
                f"{model}@{version}: registered at commit {found.commit_hexsha[:12]}, expected none or this one,"
                f" {commit[:12]}; publish under a new version"
            )
        if found.commit_hexsha == commit and found.version != version:
            raise PublishError(
                f"commit {commit[:12]}: registered as {model}@{found.version}, expected {version}, and a commit has one"
                " version; publish it under that one"
            )
    identity = subprocess.run(
        ["git", "var", "GIT_COMMITTER_IDENT"], cwd=root, capture_output=True, text=True, check=False
    )
    if identity.returncode:
        raise PublishError(
            f"{root}: git has no name for who publishes, expected user.name and user.email; `git config --global"
            " user.name Ada` and `git config --global user.email ada@example.com` tell it"
        )


def register(root: Path, manifest: Manifest, address: str) -> bool:
    """Make the tag, unless it is there.

    Args:
        root: The git repository's root.
        manifest: Of the version, which is published; the tag's message has its hash.
        address: Where it is published.

    Returns:
        Whether it was made.

    Raises:
        PublishError: git or GTO refuses.
    """
    from gto.api import register as gto_register
    from gto.exceptions import GTOException
    from scmrepo.exceptions import SCMError

    registered = {found.version: found.commit_hexsha for found in _versions(root, manifest.model)}
    if registered.get(manifest.version) == manifest.git_commit:
        return False
    sha256 = hashlib.sha256(to_bytes(manifest)).hexdigest()
    message = f"{manifest.model} {manifest.version}\n\n{address}\nmanifest.json sha256 {sha256}\n"
    try:
        gto_register(
            os.fspath(root), manifest.model, manifest.git_commit, version=manifest.version, message=message, simple=True
        )
    except (GTOException, SCMError) as error:
        raise PublishError(
            f"{tag_of(manifest)}: published, but the tag cannot be made ({_line(error)}); correct that and run again"
        ) from error
    return True


def push_tag(root: Path, manifest: Manifest, remote: str) -> None:
    """Push the tag to a git remote.

    Raises:
        PublishError: git refuses.
    """
    tag = tag_of(manifest)
    done = subprocess.run(
        ["git", "push", "--quiet", remote, f"refs/tags/{tag}"], cwd=root, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no output"])[0].removeprefix("fatal: ")
        raise PublishError(
            f"{tag}: published and registered, but not pushed ({said}); `git push {remote} {tag}` does it"
        )


def tag_of(manifest: Manifest) -> str:
    """Return the tag's name."""
    return f"{manifest.model}@{manifest.version}"


def _artifacts(root: Path) -> set[str]:
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(os.fspath(root)) as repo:
            return set(repo.artifacts.read().get("dvc.yaml", {}))
    except DvcException as error:
        raise PublishError(f"{root / 'dvc.yaml'}: {_line(error)}; mend it, `dvc dag` shows the same") from error


def _versions(root: Path, model: str) -> list[Version]:
    from gto.exceptions import GTOException
    from gto.registry import GitRegistry

    try:
        with GitRegistry.from_url(os.fspath(root)) as registry:
            found = registry.find_artifact(model, create_new=True)
            return [version for version in found.versions if version.is_registered and version.is_active]
    except GTOException as error:
        raise PublishError(
            f"{root}: the tags of {model} cannot be read ({_line(error)}); see `gto show {model}`"
        ) from error


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
