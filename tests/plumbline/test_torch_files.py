"""A file of torch is read whole, or refused; never with other values in it."""

from __future__ import annotations

import io

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plumbline.torch_files import DamagedFileError, check_torch_file, read_torch_file

CONTENT = {"rows": [{"epoch": 1, "loss": 0.5}], "weights": torch.arange(300.0), "name": "small"}


def saved() -> bytes:
    file = io.BytesIO()
    torch.save(CONTENT, file)
    return file.getvalue()


SAVED = saved()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("torch") / "file.pt"


def same(content: object) -> bool:
    return (
        isinstance(content, dict)
        and content["rows"] == CONTENT["rows"]
        and torch.equal(content["weights"], CONTENT["weights"])
        and content["name"] == CONTENT["name"]
    )


@pytest.mark.parametrize("weights_only", [True, False])
def test_a_whole_file_is_read(path, weights_only):
    path.write_bytes(SAVED)
    assert same(read_torch_file(path, weights_only=weights_only))


@given(place=st.integers(0, len(SAVED) - 1), bit=st.integers(0, 7), weights_only=st.booleans())
def test_a_flipped_bit_changes_no_value(path, place, bit, weights_only):
    damaged = bytearray(SAVED)
    damaged[place] ^= 1 << bit
    path.write_bytes(damaged)
    try:
        content = read_torch_file(path, weights_only=weights_only)
    except DamagedFileError:
        return
    # The bit was in what no checksum covers and no value comes from: dates, padding.
    assert same(content)


def test_a_flipped_bit_of_a_tensor_is_found(path):
    # Which torch.load reads without a word.
    damaged = bytearray(SAVED)
    damaged[SAVED.index(CONTENT["weights"].numpy().tobytes()) + 600] ^= 1
    path.write_bytes(damaged)
    assert not same(torch.load(path))
    with pytest.raises(DamagedFileError, match=r"^archive/data/0 in it is damaged"):
        read_torch_file(path, weights_only=True)
    with pytest.raises(DamagedFileError):
        check_torch_file(path)


def test_a_tensor_that_is_marked_as_a_folder_is_found(path):
    # Of which torch.load gives what the memory happens to hold.
    entry = SAVED.rindex(b"archive/data/0") - 46  # in the list at the end
    assert SAVED[entry : entry + 4] == b"PK\x01\x02"
    damaged = bytearray(SAVED)
    damaged[entry + 38] ^= 0x10
    path.write_bytes(damaged)
    with pytest.raises(DamagedFileError, match=r"^archive/data/0 in it is damaged"):
        check_torch_file(path)


@given(length=st.integers(0, len(SAVED) - 1))
def test_a_cut_file_is_refused(path, length):
    path.write_bytes(SAVED[:length])
    with pytest.raises(DamagedFileError):
        read_torch_file(path, weights_only=False)


@given(content=st.binary(max_size=2000), weights_only=st.booleans())
def test_other_bytes_are_refused(path, content, weights_only):
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match="not a whole ZIP archive"):
        read_torch_file(path, weights_only=weights_only)


def test_code_is_not_run(path):
    torch.save(torch.nn.Linear(1, 1), path)
    with pytest.raises(DamagedFileError, match="torch cannot read it: UnpicklingError"):
        read_torch_file(path, weights_only=True)


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_torch_file(tmp_path / "none.pt", weights_only=True)
