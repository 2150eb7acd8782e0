"""The whole of params.yaml is checked before a run, with what --set would change."""

from __future__ import annotations

import functools
import re
import shutil
from pathlib import Path

import pytest
from pydantic import Field

from pipelines.check_params import check_params, main, parse_override, stage_sections
from plumbline.errors import ParamsError
from plumbline.params import StageParams

ROOT = Path(__file__).parent.parent.parent
PARAMS = """\
# A comment.
data:
  source: here
train:
  epochs: 3
targets:
  small: {bits: 8}
  large: {bits: 32}
"""


class Data(StageParams):
    source: str

    def missing_files(self) -> dict[str, str]:
        return {"source": "no such folder, expected images; change it"} if self.source == "nowhere" else {}


class Train(StageParams):
    epochs: int = Field(ge=1)


class Quick(StageParams):
    """A second reader of the section `train`."""

    epochs: int = Field(le=100)


class Target(StageParams):
    bits: int


SECTIONS = (("data", Data), ("train", Train), ("train", Quick), ("targets.*", Target))


@pytest.fixture
def path(tmp_path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS)
    return path


def fault(path: Path, *sets: str) -> str:
    """Return the one line that the check says."""
    with pytest.raises(ParamsError) as caught:
        check_params(path, SECTIONS, [parse_override(text) for text in sets])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def changed(path: Path, old: str, new: str) -> Path:
    assert old in PARAMS
    path.write_text(PARAMS.replace(old, new))
    return path


def test_a_good_file_is_good(path):
    check_params(path, SECTIONS)


def test_the_projects_own_file_and_stages_fit(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)

    assert main([]) == 0
    assert {"dataset", "split", "train", "targets.*"} <= {name for name, _ in stage_sections()}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "epochs: 3",
            "epochs: three",
            "5: wrong value for train.epochs, expected a valid integer, got 'three'",
        ),
        ("epochs: 3", "epochs: 101", "5: wrong value for train.epochs, expected less than or equal to 100, got 101"),
        ("epochs: 3", "epoch: 3", "5: unknown parameter train.epoch, .*did you mean 'epochs'"),
        (
            "train:",
            "trian:",
            "4: unknown section 'trian', expected one of: data, train, targets; did you mean 'train'",
        ),
        ("bits: 32", "bits: x", "8: wrong value for targets.large.bits"),
        ("train:\n  epochs: 3\n", "", " no section 'train', .*; add it"),
        (
            "  small: {bits: 8}\n  large: {bits: 32}\n",
            "",
            "6: wrong value for targets, .*one entry or more, got None; add one",
        ),
        ("source: here", "source: nowhere", "3: data.source: no such folder, expected images; change it"),
    ],
)
def test_a_fault_names_its_line(path, old, new, said):
    told = fault(changed(path, old, new))

    assert told.startswith(f"{path}:")
    assert re.match(said, told.removeprefix(f"{path}:"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("train.epochs=x", "wrong value for train.epochs, expected a valid integer, got 'x' (str); change it"),
        ("train.epoch=3", "unknown parameter train.epoch, expected one of: epochs; did you mean 'epochs'?"),
        ("trian.epochs=3", "unknown section 'trian', expected one of: data, train, targets; did you mean 'train'?"),
        ("targets={}", "wrong value for targets, expected a mapping with one entry or more, got {}; add one"),
        ("targets.large.bit=3", "unknown parameter targets.large.bit, expected one of: bits; did you mean 'bits'?"),
        ("targets.new.bits=x", "wrong value for targets.new.bits, expected a valid integer, got 'x' (str); change it"),
        ("targets.new={}", "missing parameter targets.new.bits, expected a value; add it"),
        ("train.epochs.more=3", "train.epochs is 3, expected a mapping; set train.epochs as a whole"),
        ("data.source=nowhere", "data.source: no such folder, expected images; change it"),
        ("train.epochs", "expected section.key=value, such as split.seed=3; write it so"),
        ("=3", "expected section.key=value, such as split.seed=3; write it so"),
        ("train.epochs=[", "the value is not YAML, expected such as 3, 0.5, name or [a, b]"),
    ],
)
def test_a_fault_of_set_names_what_was_typed(path, given, said):
    assert fault(path, given) == f"--set {given}: {said}"


def test_a_fault_of_the_file_is_not_blamed_on_another_key_that_was_set(path):
    assert fault(changed(path, "bits: 8", "bits: x"), "targets.large.bits=4", "train.epochs=4").startswith(
        f"{path}:7: "
    )


def test_set_can_mend_the_file_and_leaves_it_alone(path):
    text = changed(path, "epochs: 3", "epochs: 0").read_text()

    check_params(path, SECTIONS, [parse_override("train.epochs=4"), parse_override("targets.new={bits: 4}")])

    assert path.read_text() == text


def test_values_are_read_as_yaml_1_2():
    assert [parse_override(f"a={text}").value for text in ("1e-3", "no", "010", "", "x=y")] == [
        0.001,
        "no",
        10,
        None,
        "x=y",
    ]


def test_the_command_says_one_line_and_exits_with_1(path, capsys):
    assert main(["--params", str(path)]) == 1

    output, error = capsys.readouterr()
    assert output == ""
    assert re.fullmatch(r"error: .*params\.yaml:2: unknown section 'data', .*\n", error)


@pytest.mark.parametrize("name", ["onnx.v2", "ncnn fp32", "weights", "Big", "-x"])
def test_a_target_whose_name_cannot_be_a_stage_is_refused(tmp_path, name):
    from stages.export import TargetParams

    path = tmp_path / "params.yaml"
    path.write_text(f'targets:\n  "{name}": {{backend: onnx, precision: fp32}}\n')
    with pytest.raises(ParamsError, match=rf"params.yaml:2: the name '{name}' cannot be used, expected"):
        check_params(path, [("targets.*", TargetParams)])


def test_a_toolchain_that_is_not_here_is_told_before_anything_runs(tmp_path, monkeypatch):
    """The export would say so after the training."""
    from plumbline.backends import rknn

    path = tmp_path / "params.yaml"
    shutil.copy(ROOT / "params.yaml", path)
    check = functools.partial(check_params, path, stage_sections())
    target = "targets={a: {backend: tensorrt, precision: int8}}"
    with pytest.raises(ParamsError, match=r"^--set targets=.*: targets\.a\.backend: TensorRT is not installed"):
        check([parse_override(target)])
    target = "targets={a: {backend: rknn, precision: int8, chip: rk3588}}"
    monkeypatch.setattr(rknn, "missing", lambda: "run `make rknn`")
    with pytest.raises(ParamsError, match=r"^--set targets=.*: targets\.a\.backend: run `make rknn`$"):
        check([parse_override(target)])
    monkeypatch.setattr(rknn, "missing", lambda: "")
    check([parse_override(target)])
