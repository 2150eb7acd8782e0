"""artifact.json: what is written is read, and what is damaged is refused."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline.errors import BackendError
from plumbline.runtime.artifact import (
    Artifact,
    ClassifierDecode,
    ClassifierOutputs,
    DecodeSpec,
    InputSpec,
    OutputSpec,
    Preprocessing,
    read_artifact,
    write_artifact,
)

TEXT = st.text(max_size=20)
FRACTION = st.floats(0.01, 0.99)
JSON = st.dictionaries(TEXT, st.one_of(TEXT, st.integers(-1000, 1000), st.none(), st.lists(st.integers(), max_size=3)))
THREE = st.tuples(FRACTION, FRACTION, FRACTION)
TASKS = {
    "detect": {
        "outputs": st.builds(
            OutputSpec,
            names=st.lists(TEXT, max_size=6).map(tuple),
            strides=st.lists(st.integers(1, 64), max_size=3).map(tuple),
            reg_max=st.integers(1, 32),
            nms_free=st.booleans(),
        ),
        "decode": st.builds(DecodeSpec, FRACTION, FRACTION, st.integers(1, 1000)),
    },
    "classify": {
        "outputs": st.builds(ClassifierOutputs, st.tuples(TEXT)),
        "decode": st.builds(ClassifierDecode, FRACTION),
    },
}


def artifacts(task):
    return st.builds(
        Artifact,
        name=TEXT,
        task=st.just(task),
        backend=TEXT,
        precision=st.sampled_from(["fp32", "fp16", "int8"]),
        class_names=st.lists(TEXT, min_size=1, max_size=5).map(tuple),
        input=st.builds(InputSpec, name=TEXT, size_wh=st.tuples(st.integers(1, 4096), st.integers(1, 4096))),
        preprocessing=st.builds(
            Preprocessing,
            resize=st.sampled_from(["letterbox", "crop", "stretch"]),
            pad_value=st.integers(0, 255),
            scale=FRACTION,
            mean=THREE,
            std=THREE,
        ),
        files=st.just({}),
        toolchain=st.dictionaries(TEXT, TEXT),
        lineage=JSON,
        notes=JSON,
        reproducible=st.booleans(),
        **TASKS[task],
    )


@settings(max_examples=60, deadline=None)
@given(st.one_of(artifacts("detect"), artifacts("classify")), st.binary(max_size=50))
def test_what_is_written_is_read(artifact, content):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "engine.bin").write_bytes(content)
        written = write_artifact(artifact, root)
        assert list(written.files) == ["engine.bin"]
        assert read_artifact(root) == written
        first = (root / "artifact.json").read_bytes()
        write_artifact(written, root)
        assert (root / "artifact.json").read_bytes() == first


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "engine.bin").write_bytes(b"weights")
    artifact = Artifact(
        "x", "detect", "onnx", "fp32", ("a",), InputSpec("images", (8, 8)), Preprocessing(),
        OutputSpec(("b", "c"), (8,), 1, nms_free=False), DecodeSpec(0.25, 0.7, 300), {}, {}, {}, {},
    )  # fmt: skip
    write_artifact(artifact, tmp_path)
    return tmp_path


def test_a_changed_byte_is_found(folder):
    (folder / "engine.bin").write_bytes(b"weighty")
    with pytest.raises(
        BackendError, match=r"engine\.bin: damaged, expected sha256 \w{12}\.\.\., got \w{12}\.\.\.; export"
    ):
        read_artifact(folder)
    assert read_artifact(folder, verify=False).name == "x"


def test_a_missing_file_is_found(folder):
    (folder / "engine.bin").unlink()
    with pytest.raises(BackendError, match=r"engine\.bin: missing"):
        read_artifact(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(format_version=2), "expected format_version 1, got 2"),
        (lambda v: v.pop("outputs"), "a key is missing or unknown"),
        (lambda v: v.update(colour="red"), "a key is missing or unknown"),
        (lambda v: v.update(task="segment"), "a key is missing or unknown"),
        (lambda v: v.update(task="classify"), "a key is missing or unknown"),
        (lambda v: v.update(outputs=None), "a key is missing or unknown"),
    ],
)
def test_another_format_is_refused(folder, change, message):
    path = folder / "artifact.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    with pytest.raises(BackendError, match=message):
        read_artifact(folder)


def test_an_artifact_from_before_mean_and_std_has_none(folder):
    path = folder / "artifact.json"
    values = json.loads(path.read_text())
    del values["preprocessing"]["mean"], values["preprocessing"]["std"]
    path.write_text(json.dumps(values))
    preprocessing = read_artifact(folder).preprocessing
    assert (preprocessing.mean, preprocessing.std) == ((0, 0, 0), (1, 1, 1))


def test_no_artifact_and_no_json(tmp_path):
    with pytest.raises(BackendError, match=r"artifact\.json: no such file, expected an exported artifact"):
        read_artifact(tmp_path)
    (tmp_path / "artifact.json").write_text("{")
    with pytest.raises(BackendError, match=r"artifact\.json: not JSON"):
        read_artifact(tmp_path)
