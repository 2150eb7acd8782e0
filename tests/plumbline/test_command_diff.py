"""`plumbline diff`: what people and machines are told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from plumbline.commands import main
from plumbline.commands.diff import to_json, to_markdown
from plumbline.dataset_diff import CLASS_COLUMNS, diff_datasets
from plumbline.formats.reading import ImageRecord, LabelRow, ReadResult, build_dataset
from plumbline.image_scan import ImageScan
from plumbline.manifest import Dataset, write_dataset

Box = tuple[float, float, float, float]
SCAN = ImageScan("", 100, 100, 0, readable=True, brightness=0, contrast=0, sharpness=0, problem="")


def dataset(
    images: dict[str, str], labels: list[tuple[str, str, Box | None]], class_names: tuple[str, ...] = ("cat", "dog")
) -> Dataset:
    scans = {name: replace(SCAN, sha256=sha256) for name, sha256 in images.items()}
    rows = [LabelRow(image, 0, class_name, xyxy, "labels", 1) for image, class_name, xyxy in labels]
    records = [ImageRecord(name, "", name) for name in images]
    return build_dataset(records, scans, ReadResult(rows=rows), class_names, Path("nowhere"))


@pytest.fixture
def before() -> Dataset:
    box = (10.0, 10.0, 30.0, 30.0)
    return dataset(
        {"a.png": "A", "old.png": "R", "gone.png": "G"},
        [
            ("a.png", "cat", box),
            ("a.png", "dog", (50, 50, 60.5, 60)),
            ("old.png", "cat", None),
            ("gone.png", "dog", box),
        ],
    )


@pytest.fixture
def after() -> Dataset:
    return dataset(
        {"a.png": "A", "new.png": "R"},
        [("a.png", "cat", (11.0, 10.0, 31.0, 30.0)), ("a.png", "cat", (50, 50, 60.5, 60)), ("new.png", "dog", None)],
    )


EXPECTED = """\
### Data: `v1` to `v2`

|        | before | after | added | removed | changed | renamed |
|:-------|-------:|------:|------:|--------:|--------:|--------:|
| images |      3 |     2 |     0 |       1 |       0 |       1 |

| class | before | after | became it | in removed images | was it | moved |
|:------|-------:|------:|----------:|------------------:|-------:|------:|
| cat   |      2 |     2 |         1 |                 0 |      1 |     1 |
| dog   |      2 |     1 |         1 |                 1 |      1 |     0 |
| all   |      4 |     3 |         2 |                 1 |      2 |     1 |

Images removed: 1

- `gone.png`

Images renamed: 1

- `old.png` to `new.png`

Labels moved: 1

- `a.png`: `cat` (10, 10, 30, 30) to `cat` (11, 10, 31, 30)

Labels of another class: 2

- `a.png`: `dog` (50, 50, 60.5, 60) to `cat` (50, 50, 60.5, 60)
- `new.png`: `cat` to `dog`
"""


def test_the_text_is_a_table_and_the_items(before, after):
    assert to_markdown(diff_datasets(before, after), "v1", "v2") == EXPECTED


def test_the_command_prints_and_writes_the_same(before, after, tmp_path, capsys):
    for name, data in (("v1", before), ("v2", after)):
        (tmp_path / name).mkdir()
        write_dataset(data, tmp_path / name)
    argv = ["diff", str(tmp_path / "v1"), str(tmp_path / "v2")]
    argv += ["--json", str(tmp_path / "d.json"), "--markdown", str(tmp_path / "d.md")]
    written = []
    for _ in range(2):
        assert main(argv) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        assert captured.out == (tmp_path / "d.md").read_text()
        assert captured.out.splitlines()[1:] == EXPECTED.splitlines()[1:]
        written.append((tmp_path / "d.json").read_bytes())
    assert written[0] == written[1]
    assert json.loads(written[0]) == to_json(diff_datasets(before, after))


def test_the_json_holds_every_change(before, after):
    values = to_json(diff_datasets(before, after))
    assert values["num_images"] == {"a": 3, "b": 2}
    assert values["image_changes"] == {"added": 0, "removed": 1, "changed": 0, "renamed": 1}
    assert values["label_changes"] == {"added": 0, "removed": 0, "moved": 1, "reclassified": 2, "details": 0}
    assert set(values["classes"]["cat"]) == set(CLASS_COLUMNS)
    assert values["images"][0] == {"change": "removed", "path_a": "images/gone.png", "path_b": ""}
    moved = values["labels"][0]
    assert (moved["change"], moved["x1_a"], moved["x1_b"]) == ("moved", 10.0, 11.0)
    assert values["labels"][2]["x1_a"] is None
    json.dumps(values, allow_nan=False)


def test_no_change_is_one_sentence(before):
    text = to_markdown(diff_datasets(before, before), "v1", "v1")
    assert text == "### Data: `v1` to `v1`\n\nNothing changed: 3 images, 4 labels.\n"


def test_ten_of_many_are_shown_and_the_rest_counted():
    many = dataset({f"{i:02}.png": str(i) for i in range(12)}, [(f"{i:02}.png", "cat", None) for i in range(12)])
    text = to_markdown(diff_datasets(dataset({}, []), many), "v1", "v2")
    assert "Images added: 12\n\n- `00.png`\n" in text
    assert text.endswith("- `09.png`\n- ... and 2 more\n")
    assert "`10.png`" not in text


def test_names_are_never_markup():
    name = "a|b<i>`x`.png"
    odd = dataset({name: "A"}, [(name, "c|d<b>", None)], class_names=("c|d<b>",))
    text = to_markdown(diff_datasets(dataset({}, [], class_names=()), odd), "v`1", "v2")
    assert "| c\\|d&lt;b> |" in text
    assert "- `a|b<i>'x'.png`" in text
    assert "Classes added: `c|d<b>`." in text
    for change in (dataset({"a": "A"}, [("a", "bell\a", None)]), dataset({"a": "A"}, [("a", "bell\x1b[31m", None)])):
        text = to_markdown(diff_datasets(dataset({"a": "A"}, []), change), "v1", "v2")
        assert text.replace("\n", "").isprintable()


def test_another_order_of_classes_is_told():
    a, b = dataset({"a": "A"}, []), dataset({"a": "A"}, [], class_names=("dog", "cat"))
    assert "The classes have another order: `dog`, `cat`." in to_markdown(diff_datasets(a, b), "v1", "v2")
