"""The suite holds for good tables, names what it finds in bad ones, and its pages need no network."""

import html
import re

import numpy as np
import pytest
from dataset_rows import NAN4, box, dataset, image

from plumbline.data_docs import offline
from plumbline.expectations import SUITES, check_expectations
from plumbline.manifest import FINDINGS_SCHEMA, Dataset


def with_column(data, name, column, values):
    tables = {"images": data.images, "annotations": data.annotations}
    tables[name] = tables[name].assign(**{column: values})
    return Dataset(tables["images"], tables["annotations"], data.findings, data.class_names, data.root)


def test_good_tables_hold_with_boxes_and_labels_of_whole_images():
    images = [image(0, split="train", exif_orientation=8), image(1)]
    boxes = [box(0), box(1, NAN4, image_id=1), box(2, (-0.01, 0, 100.01, 50))]
    failed = check_expectations(dataset(images, boxes))
    assert failed.empty
    assert list(failed) == FINDINGS_SCHEMA.names


# Column, values, and what the finding says; the first id is that of the first bad row.
BAD = [
    ("images", "image_id", [0, 0], "to_be_unique fails on images.parquet, column image_id"),
    ("images", "path", ["a", "a"], "to_be_unique fails on images.parquet, column path"),
    ("images", "path", ["a", None], "to_not_be_null fails on images.parquet, column path"),
    ("images", "width", [100, 0], "expected min_value=1.0, got 1 of 2 rows against it (first image_id: 1)"),
    ("images", "height", [50, 0], "to_be_between fails on images.parquet, column height"),
    ("images", "exif_orientation", [1, 9], "expected max_value=8.0, min_value=1.0, got 1 of 2"),
    ("images", "split", ["", "training"], "expected value_set=['', 'train', 'val', 'test'], got 1 of 2"),
    ("images", "sha256", ["a" * 64, "a"], "fails on images.parquet, column sha256"),
    ("annotations", "ann_id", [3, 3], "to_be_unique fails on annotations.parquet, column ann_id"),
    ("annotations", "image_id", [0, 7], "column has_image, expected value_set=[True], got 1 of 2 rows against it"),
    ("annotations", "class_id", [0, 2], "expected max_value=1.0, min_value=0.0, got 1 of 2 rows against it (first ann"),
    ("annotations", "class_id", [-1, 0], "column class_id"),
    ("annotations", "x1", [1.0, np.nan], "column num_corners, expected value_set=[0, 4], got 1 of 2"),
    ("annotations", "x1", [9.0, 31.0], "expected x2 > x1, got 1 of 2 rows against it (first ann_id: 90)"),
    ("annotations", "y2", [9.0, 0.0], "expected y2 > y1, got 1 of 2 rows against it (first ann_id: 91)"),
    ("annotations", "x1", [-1.0, 31.0], "column x1, expected min_value=-0.01, got 1 of 2"),
    ("annotations", "x2", [9.0, 100.5], "expected right_edge >= x2, got 1 of 2"),
    ("annotations", "y2", [9.0, 51.0], "expected lower_edge >= y2, got 1 of 2"),
    ("annotations", "source_line", [1, -1], "column source_line"),
]


@pytest.mark.parametrize(("name", "column", "values", "said"), BAD)
def test_what_does_not_hold_is_a_finding_with_its_table_number_and_first_ids(name, column, values, said):
    failed = check_expectations(with_column(dataset(), name, column, values))
    assert set(failed["code"]) == {"E404"}
    assert set(failed["source_file"]) <= {"images.parquet", "annotations.parquet"}
    assert any(said in message for message in failed["message"]), failed["message"].tolist()


def test_an_empty_table_does_not_pass():
    data = dataset()
    empty = Dataset(data.images.iloc[:0], data.annotations.iloc[:0], data.findings, data.class_names, data.root)
    assert check_expectations(empty)["message"].tolist() == [
        f"expect_table_row_count_to_be_between fails on {name}.parquet, expected min_value=1, got 0" for name in SUITES
    ]


def test_the_pages_can_be_read_without_the_network(tmp_path):
    data = with_column(dataset(), "annotations", "class_id", [0, 7])
    check_expectations(data, tmp_path / "docs")
    pages = {page.relative_to(tmp_path / "docs").as_posix(): page.read_text() for page in tmp_path.rglob("*.html")}
    index = pages["index.html"]
    links = re.findall('href="([^"]+)"', index)
    assert len(links) == 4
    assert set(links) < set(pages)
    assert "1 fail" in index
    for page in pages.values():
        # A link that a person may click is no request; a style, script or picture is.
        assert not re.search(r"""<script|<(?:link|img)\b[^>]*(?:href|src)=.https?:|url\(.?https?:""", page)
    (result,) = (html.unescape(page) for name, page in pages.items() if name.startswith("validations/annotations"))
    assert "≈50% unexpected" in result or "50% unexpected" in result
    assert "fa-times" in result
    # A second run replaces the pages of the first.
    check_expectations(data, tmp_path / "docs")
    assert len([*tmp_path.rglob("validations/annotations/**/*.html")]) == 1


def test_offline_takes_out_scripts_styles_and_pictures_from_elsewhere():
    page = (
        "<head><script>\nf('<p>')\n</script><link rel='x' href=\"https://a/b.css\"/><link href=\"c.css\"></head>"
        '<img alt="" src="https://a/b.png"><p style="background: url(\'https://a\') 0 0">x</p>'
    )
    kept = re.sub("<style>.*</style>", "", offline(page), flags=re.DOTALL)
    assert kept == '<head><link href="c.css"></head><p style="background: none 0 0">x</p>'
