"""A wrong params.yaml gives one line that names the file, the line, what was expected and what to do."""

import textwrap

import pytest
from pydantic import Field, model_validator

from plumbline.errors import ParamsError
from plumbline.params import StageParams, line_of, load_section, read_params


class Inner(StageParams):
    left: float = Field(ge=0)
    right: float

    @model_validator(mode="after")
    def _ordered(self):
        if self.left > self.right:
            raise ValueError("left to be at most right")
        return self


class Outer(StageParams):
    seed: int
    rate: float
    names: list[str]
    inner: Inner


GOOD = """\
# a comment
outer:
  seed: 3
  rate: 1e-3
  names: [a, no]
  inner: {left: 1, right: 2.5}
targets:
  onnx-fp32: {left: 0, right: 1}
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "params.yaml"
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return write


def message_of(path, section="outer", model=Outer):
    with pytest.raises(ParamsError) as caught:
        load_section(path, section, model)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(str(path))


def test_a_good_section_is_read_as_yaml_1_2(write):
    outer = load_section(write(GOOD), "outer", Outer)
    assert outer.rate == 0.001  # PyYAML reads 1e-3 as a string
    assert outer.names == ["a", "no"]  # and no as false
    assert outer.inner.left == 1.0
    with pytest.raises(ValueError, match="frozen"):
        outer.seed = 4


def test_a_section_with_dots_is_a_nested_one(write):
    assert load_section(write(GOOD), "targets.onnx-fp32", Inner).right == 1.0


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("seed: 3", "sead: 3", ":3: unknown parameter outer.sead, expected one of: seed, rate, names, inner;"
                               " did you mean 'seed'? (and 1 more in this section)"),
        ("seed: 3", "seed: 3\n  zzz: 1", ":4: unknown parameter outer.zzz, expected one of: seed, rate, names, inner;"
                                         " remove it"),
        ("left: 1,", "lefd: 1,", ":6: unknown parameter outer.inner.lefd, expected one of: left, right;"
                                 " did you mean 'left'? (and 1 more in this section)"),
        ("seed: 3", "seed: '3'", ":3: wrong value for outer.seed, expected a valid integer, got '3' (str); change it"),
        ("seed: 3", "seed: 3.0", ":3: wrong value for outer.seed, expected a valid integer, got 3.0 (float);"
                                  " change it"),
        ("seed: 3", "seed: true", ":3: wrong value for outer.seed, expected a valid integer, got True (bool);"
                                   " change it"),
        ("1e-3", "fast", ":4: wrong value for outer.rate, expected a valid number, got 'fast' (str); change it"),
        ("[a, no]", "[a, 7]", ":5: wrong value for outer.names.1, expected a valid string, got 7 (int); change it"),
        ("left: 1,", "left: -1,", ":6: wrong value for outer.inner.left, expected greater than or equal to 0,"
                                  " got -1 (int); change it"),
        ("left: 1,", "left: 9,", ":6: wrong value for outer.inner, expected left to be at most right,"
                                 " got {'left': 9, 'right': 2.5} (dict); change it"),
        ("  seed: 3\n", "", ":2: missing parameter outer.seed, expected a value; add it"),
        ("{left: 1, right: 2.5}", "{left: 1}", ":6: missing parameter outer.inner.right, expected a value; add it"),
    ],
)  # fmt: skip
def test_a_wrong_key_is_named_with_its_line(write, old, new, expected):
    assert GOOD.count(old) == 1
    assert message_of(write(GOOD.replace(old, new))) == expected


def test_a_missing_section_names_those_that_are_there(write):
    path = write(GOOD)
    assert message_of(path, "train") == ": no section 'train', expected one of: outer, targets; add it"
    assert "expected one of: onnx-fp32" in message_of(path, "targets.ncnn", Inner)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", ":3: not YAML ("),
        ("a: 1\na: 2\n", ':2: not YAML (found duplicate key "a"'),
        ("a: \x07\n", ":1: not YAML ("),
        ("", ":1: not parameters, expected a mapping of sections, got NoneType;"),
        ("- a\n", ":1: not parameters, expected a mapping of sections, got list;"),
    ],
)
def test_what_is_no_mapping_is_refused(write, text, expected):
    assert message_of(write(text)).startswith(expected)


def test_what_is_no_utf8_is_refused(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_bytes("outer: ö".encode("latin-1"))
    assert message_of(path).startswith(":1: not YAML (")


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    assert message_of(tmp_path / "none.yaml") == (
        ": cannot be read (No such file or directory), expected the pipeline's parameters; run from the project's root"
    )
    with pytest.raises(ParamsError, match="Is a directory"):
        read_params(tmp_path)


def test_the_line_of_a_missing_key_is_its_parents(write):
    path = write(GOOD)
    assert line_of(path, ("outer", "names", 1)) == 5
    assert line_of(path, ("outer", "nothing")) == 2
    assert line_of(path, ("nothing",)) == 1


class Parts(StageParams):
    """A section whose key belongs one level deeper."""

    small: Inner
    large: Inner


def test_a_key_of_a_part_is_looked_for_in_the_parts(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("train:\n  left: 3\n  small: {left: 1}\n  large: {left: 1}\n")
    with pytest.raises(ParamsError, match=r"did you mean 'small\.left' or 'large\.left'"):
        load_section(path, "train", Parts)
