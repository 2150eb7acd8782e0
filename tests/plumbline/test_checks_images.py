"""Each check of images and their names finds its fault, and nothing that another one explains."""

import numpy as np
import pytest
from dataset_rows import NAN4, STRICT, box, dataset, found, image, messages
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline.checks import judge
from plumbline.checks.images import first_near
from plumbline.checks.names import folded

SAME = "f" * 64


def of_images(data):
    findings = judge(data, STRICT).findings
    return sorted(zip(findings["code"], findings["image_id"], strict=True))


def test_unreadable_damaged_and_tiny_images_are_told_apart():
    images = [
        image(0),
        image(1, readable=False, problem="no signature", width=0, height=0, phash=0),
        image(2, readable=False, damaged=True, problem="cut short", width=0, height=0, phash=0),
        image(3, width=9, height=400),
        image(4, width=10, height=10),
    ]
    data = dataset(images)
    assert of_images(data) == [("E101", 1), ("E102", 2), ("E111", 3)]
    assert messages(data) == [
        "image cannot be decoded (no signature), expected a whole image",
        "image is damaged (cut short), expected a whole image",
        "image is tiny, expected sides of 10 pixels or more, got 9 x 400",
    ]


def test_equal_bytes_keep_the_first_and_equal_labels_are_told_from_others():
    images = [image(0), *(image(n, sha256=SAME, phash=7) for n in (1, 2, 3, 4))]
    boxes = [
        box(0, image_id=1), box(1, (30, 10, 40, 20), image_id=1, class_id=1),
        box(2, (30, 10, 40, 20), image_id=2, class_id=1), box(3, (10.02, 10, 20, 20), image_id=2),  # same, other order
        box(4, image_id=3), box(5, (30, 10, 40, 21), image_id=3, class_id=1),  # one moved by a pixel
    ]  # fmt: skip
    data = dataset(images, boxes)
    assert of_images(data) == [("E107", 2), ("E108", 3), ("E108", 4)]
    assert messages(data) == [
        "image has been seen before, expected every image once, got the bytes and labels of in/1.jpg",
        "image has the bytes of in/1.jpg and other labels, expected the same, got 2 labels here and 2 there",
        "image has the bytes of in/1.jpg and other labels, expected the same, got 0 labels here and 2 there",
    ]


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [
        ({"class_id": 0}, {"class_id": 0}, "E107"),
        ({"class_id": 0}, {"class_id": 1}, "E108"),
        ({"class_id": -1, "class_name": "a"}, {"class_id": -1, "class_name": "b"}, "E108"),
    ],
)
def test_labels_of_whole_images_are_compared_too(first, second, code):
    images = [image(0), image(1, sha256=SAME), image(2, sha256=SAME)]
    data = dataset(images, [box(0, NAN4, image_id=1) | first, box(1, NAN4, image_id=2) | second])
    assert (code, 2) in of_images(data)


def test_a_repeated_box_makes_labels_differ_unless_it_is_repaired():
    images = [image(0), image(1, sha256=SAME), image(2, sha256=SAME)]
    data = dataset(images, [box(0, image_id=1), box(1, image_id=2), box(2, image_id=2)])
    assert found(data) == [("E108", -1), ("E307", 2)]
    assert found(data, fix=("E307",)) == [("E107", -1), ("E307", 2)]


def test_unreadable_files_are_not_called_duplicates():
    broken = [image(index, sha256=SAME, phash=0, readable=False) for index in (1, 2)]
    assert of_images(dataset([image(0), *broken])) == [("E101", 1), ("E101", 2)]


def test_each_near_duplicate_is_found_once_and_equal_bytes_are_not():
    images = [
        image(0), image(1, phash=0), image(2, phash=0b111111), image(3, phash=0b1111111), image(4, phash=0),
        image(5, phash=0, sha256=SAME), image(6, phash=0, sha256=SAME),
        image(7, phash=0, width=9),
    ]  # fmt: skip
    data = dataset(images)
    assert of_images(data) == [
        ("E107", 6),
        ("E109", 1),
        ("E109", 2),
        ("E109", 3),
        ("E109", 4),
        ("E109", 5),
        ("E111", 7),
    ]
    said = [message for message in messages(data) if "looks like" in message]
    assert said == [
        "image looks like in/2.jpg, expected hashes that differ by more than 6 bits, got 6",
        "image looks like in/1.jpg, expected hashes that differ by more than 6 bits, got 6",
        "image looks like in/2.jpg, expected hashes that differ by more than 6 bits, got 1",
        "image looks like in/1.jpg, expected hashes that differ by more than 6 bits, got 0",
        "image looks like in/1.jpg, expected hashes that differ by more than 6 bits, got 0",
    ]
    assert [pair for pair in found(data, max_hash_bits=0) if pair[0] == "E109"] == [("E109", -1)] * 3


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 255), max_size=40), st.integers(0, 3))
def test_the_first_near_hash_is_what_comparing_all_with_all_says(values, bits):
    expected = []
    for n, value in enumerate(values):
        near = [m for m, other in enumerate(values) if m != n and (value ^ other).bit_count() <= bits]
        expected.append(near[0] if near else -1)
    assert first_near(np.array(values, dtype=np.uint64), bits).tolist() == expected


@pytest.mark.parametrize(
    "name",
    ["con.jpg", "a/NUL", "Com7.tar.png", "lpt\u00b9.jpg", "aux/b.jpg", "what?.jpg", "a:b.jpg", 'say"so".jpg',
     "back\\slash.jpg", "dot./a.jpg", "space /a.jpg", "end. ", "\u00e9" * 126 + ".jpg"],
)  # fmt: skip
def test_names_that_some_file_system_cannot_hold_are_found(name):
    assert of_images(dataset([image(0), image(1, path=f"images/{name}")])) == [("E110", 1)]


@pytest.mark.parametrize(
    "name",
    ["icon.jpg", "console/a.jpg", "com10.jpg", "a.con.jpg", "..a.jpg", "\u00e9" * 125 + ".jpg", "x" * 251 + ".jpg"],
)
def test_other_names_are_not(name):
    assert of_images(dataset([image(0), image(1, path=f"images/{name}")])) == []


@pytest.mark.parametrize(
    ("one", "other"), [("A.jpg", "a.JPG"), ("caf\u00e9.jpg", "cafe\u0301.jpg"), ("stra\u00dfe.jpg", "STRASSE.jpg")]
)
def test_names_that_collide_are_found_at_the_later_one(one, other):
    data = dataset([image(0, path=f"images/{one}"), image(1, path=f"images/{other}"), image(2, path="images/b.jpg")])
    assert of_images(data) == [("E110", 1)]
    assert messages(data)[0].startswith(f"only case or accents tell its name from images/{one}, expected")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=12))
def test_folding_is_done_once_and_for_all(text):
    assert folded(folded(text)) == folded(text)
    assert folded(text) == folded(text.casefold())
