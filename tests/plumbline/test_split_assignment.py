"""The tracked file comes back as it was written, knows images by bytes and then by path, and says what is wrong."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumbline.errors import DatasetError
from plumbline.split_assignment import COLUMNS, earlier_splits, read_assignment, write_assignment

HEADER = "sha256,path,split\n"
# A source gives no other names: what cannot be printed is a finding there.
NAMES = st.text(st.characters(blacklist_categories=("Cs",)).filter(str.isprintable), min_size=1, max_size=12)


def table(*rows):
    return pd.DataFrame(rows, columns=list(COLUMNS))


def images(*rows):
    return pd.DataFrame(rows, columns=["sha256", "path"])


@given(st.dictionaries(NAMES, st.sampled_from(["train", "val", "test", "left_out"])), st.randoms())
def test_what_is_written_comes_back_sorted_by_path(tmp_path_factory, splits, random):
    paths = list(splits)
    random.shuffle(paths)
    folder = tmp_path_factory.mktemp("assignment")
    content = images(*[(f"sha{n}", path) for n, path in enumerate(sorted(paths))]).set_index("path").loc[paths]
    write_assignment(content.reset_index(), [splits[path] for path in paths], folder / "splits.csv")
    back = read_assignment(folder / "splits.csv")
    assert back["path"].tolist() == sorted(splits)
    assert dict(zip(back["path"], back["split"], strict=True)) == splits
    assert back["sha256"].tolist() == [f"sha{n}" for n in range(len(splits))]


def test_the_bytes_are_those_of_a_plain_table(tmp_path):
    write_assignment(images(("1", "b"), ("2", "a,b")), ["val", "left_out"], tmp_path / "s.csv")
    assert (tmp_path / "s.csv").read_bytes() == b'sha256,path,split\n2,"a,b",left_out\n1,b,val\n'


def test_no_file_is_no_rows(tmp_path):
    assert read_assignment(tmp_path / "none.csv").to_dict("list") == {"sha256": [], "path": [], "split": []}


def test_a_table_program_may_have_saved_it(tmp_path):
    (tmp_path / "s.csv").write_bytes(b"\xef\xbb\xbfsha256,path,split\r\n1,a,val\r\n")
    assert read_assignment(tmp_path / "s.csv").to_numpy().tolist() == [["1", "a", "val"]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ":1: expected sha256,path,split, got ''"),
        ("path,split\na,val\n", ":1: expected sha256,path,split, got 'path,split'"),
        (HEADER + "1,a,val\n<<<<<<< HEAD\n", ":3: expected sha256,path,split with one of train, val, test, left_out"),
        (HEADER + "1,a,dev\n", ":2: expected sha256,path,split with one of train, val, test, left_out, got '1,a,dev'"),
        (HEADER + "1,a,val\n2,a,val\n", ":3: expected each path once, got 'a' again"),
        (HEADER + '1,"a,val\n', ": expected CSV, got unexpected end of data"),
        (HEADER + "1,\udcff,val\n", ": cannot be read"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path, text, expected):
    path = tmp_path / "s.csv"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DatasetError) as error:
        read_assignment(path)
    assert str(error.value).startswith(str(path))
    assert expected in str(error.value).replace(f"{path}:2: expected CSV", f"{path}: expected CSV")


def test_an_image_is_known_by_its_bytes_wherever_it_stands():
    earlier = earlier_splits(images(("1", "new/place"), ("2", "b")), table(("1", "a", "test"), ("2", "b", "val")))
    assert earlier.tolist() == ["test", "val"]


def test_a_changed_file_is_known_by_its_path():
    assert earlier_splits(images(("9", "a")), table(("1", "a", "test"))).tolist() == ["test"]


def test_two_files_that_changed_places_keep_their_splits():
    earlier = earlier_splits(images(("2", "a"), ("1", "b")), table(("1", "a", "test"), ("2", "b", "val")))
    assert earlier.tolist() == ["val", "test"]


def test_what_stands_where_another_moved_away_is_new():
    assert earlier_splits(images(("1", "b"), ("9", "a")), table(("1", "a", "test"))).tolist() == ["test", ""]


def test_of_the_same_bytes_twice_each_keeps_its_own_place_and_a_third_takes_the_first():
    earlier = earlier_splits(images(("1", "c"), ("1", "b"), ("1", "a")), table(("1", "b", "val"), ("1", "a", "test")))
    assert earlier.tolist() == ["test", "val", "test"]


def test_what_was_left_out_has_no_place():
    assert earlier_splits(images(("1", "a")), table(("1", "a", "left_out"))).tolist() == [""]


def test_entirely_other_images_are_all_new():
    assert earlier_splits(images(("8", "x"), ("9", "y")), table(("1", "a", "test"))).tolist() == ["", ""]
