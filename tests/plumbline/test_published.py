"""What a manifest says, and what a device refuses of it."""

from __future__ import annotations

import json

import pytest
from published_version import make_version

from plumbline.published import (
    PublishError,
    is_version,
    read_manifest,
    split_reference,
    target_of,
    to_bytes,
    version_key,
)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return make_version(tmp_path_factory.mktemp("version")).manifest


def test_a_manifest_comes_back_as_it_was(manifest):
    assert read_manifest(to_bytes(manifest), "m") == manifest
    assert to_bytes(read_manifest(to_bytes(manifest), "m")) == to_bytes(manifest)


def test_semvers_own_example_is_in_order():
    order = ["alpha", "alpha.1", "alpha.beta", "beta", "beta.2", "beta.11", "rc.1"]  # semver.org, 11.4
    versions = [f"v1.0.0-{before}" for before in order] + ["v1.0.0", "v1.0.1", "v1.2.0", "v1.10.0", "v2.0.0"]
    mixed = sorted(versions)  # as text: v1.10.0 before v1.2.0
    assert mixed != versions
    assert sorted(mixed, key=version_key) == versions


@pytest.mark.parametrize(
    "text", ["1.0.0", "v1.0", "v01.0.0", "v1.0.0-", "v1.0.0-01", "v1.0.0+build", "v1.0.0/..", "latest", ""]
)
def test_what_is_no_version(text):
    assert not is_version(text)
    with pytest.raises(PublishError, match=r"expected one such as v1\.2\.3"):
        version_key(text)


@pytest.mark.parametrize(
    "text", ["signs", "signs@", "signs@1.0.0", "../signs@v1.0.0", "a/b@v1.0.0", "@v1.0.0", "Signs@v1.0.0"]
)
def test_what_is_no_reference(text):
    with pytest.raises(PublishError, match="expected MODEL@VERSION"):
        split_reference(text)


@pytest.mark.parametrize("path", ["../model.onnx", "/etc/passwd", "a/../../b", "", ".", "a\\..\\b"])
def test_a_path_that_leads_out_of_its_folder_is_refused(manifest, path):
    values = json.loads(to_bytes(manifest))
    values["targets"]["onnx-int8"]["files"][0]["path"] = path
    with pytest.raises(PublishError, match="cannot be taken"):
        read_manifest(json.dumps(values).encode(), "m")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v.update(format_version=2), "expected format_version 1, got 2"),
        (lambda v: v.pop("labels"), "a key is missing"),
        (lambda v: v.update(extra=1), "a key is missing or unknown"),
        (lambda v: v["targets"]["onnx-int8"]["files"][0].update(sha256="abc"), "cannot be taken"),
        (lambda v: v["targets"]["onnx-int8"]["files"][0].update(sha256="../" + "0" * 61), "cannot be taken"),
        (lambda v: v["targets"]["onnx-int8"]["files"][0].update(size="3"), "cannot be taken"),
    ],
)
def test_what_is_no_manifest_is_refused_with_its_name(manifest, change, said):
    values = json.loads(to_bytes(manifest))
    change(values)
    with pytest.raises(PublishError, match=f"^here: .*{said}"):
        read_manifest(json.dumps(values).encode(), "here")


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff"])
def test_what_is_not_json_is_refused(data):
    with pytest.raises(PublishError, match=r"^here: "):
        read_manifest(data, "here")


def test_of_several_targets_one_must_be_named(manifest):
    assert target_of(manifest, "onnx-int8", "m") == "onnx-int8"
    with pytest.raises(PublishError, match=r"onnx-fp32, onnx-int8 \(fastest inside the budget\)"):
        target_of(manifest, None, "m")
    with pytest.raises(PublishError, match="no target 'ncnn'"):
        target_of(manifest, "ncnn", "m")
