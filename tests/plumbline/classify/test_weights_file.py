"""The file of trained weights: what it holds, and that nothing but the numbers is in its bytes."""

from collections import OrderedDict

import pytest
import torch

from plumbline.classify.training.weights_file import ClassifierWeights, read_weights, write_weights
from plumbline.errors import BackendError
from plumbline.runtime.artifact import Preprocessing


def some_weights(order=1):
    torch.manual_seed(0)
    tensors = {"a.weight": torch.randn(4, 3), "a.bias": torch.randn(4), "norm.count": torch.tensor(7)}
    names = list(tensors)[::order]
    preprocessing = Preprocessing(resize="crop", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    return ClassifierWeights("lenet", 4, 32, preprocessing, {name: tensors[name] for name in names})


def test_it_comes_back_as_it_was(tmp_path):
    write_weights(tmp_path / "best.pt", some_weights())
    read = read_weights(tmp_path / "best.pt")
    assert (read.architecture, read.num_classes, read.image_size) == ("lenet", 4, 32)
    assert read.preprocessing == some_weights().preprocessing
    assert sorted(read.state_dict) == sorted(some_weights().state_dict)
    assert all(torch.equal(read.state_dict[name], tensor) for name, tensor in some_weights().state_dict.items())
    assert [path.name for path in tmp_path.iterdir()] == ["best.pt"]


def test_the_same_numbers_are_the_same_bytes_whatever_they_lie_in(tmp_path):
    write_weights(tmp_path / "a.pt", some_weights())
    write_weights(tmp_path / "another-name.pt", some_weights(order=-1))
    # Views of larger memory, keys that are other objects, parameters, an ordered dict with metadata; read from a file.
    first = some_weights()
    large = torch.zeros(8, 3)
    large[2:6] = first.state_dict["a.weight"]
    state = OrderedDict({"".join(list(name)): tensor for name, tensor in first.state_dict.items()})
    state["a.weight"] = torch.nn.Parameter(large[2:6])
    state._metadata = {"": {"version": 1}}
    write_weights(tmp_path / "b.pt", ClassifierWeights("".join("lenet"), 4, 32, first.preprocessing, state))
    write_weights(tmp_path / "c.pt", read_weights(tmp_path / "a.pt"))
    contents = {path.read_bytes() for path in tmp_path.iterdir()}
    assert len(contents) == 1
    write_weights(tmp_path / "d.pt", ClassifierWeights("lenet", 4, 33, first.preprocessing, state))
    assert (tmp_path / "d.pt").read_bytes() not in contents


def test_tensors_of_one_memory_are_written_apart(tmp_path):
    tied = torch.randn(3)
    preprocessing = Preprocessing()
    write_weights(tmp_path / "a.pt", ClassifierWeights("x", 2, 8, preprocessing, {"a": tied, "b": tied}))
    write_weights(tmp_path / "b.pt", ClassifierWeights("x", 2, 8, preprocessing, {"a": tied, "b": tied.clone()}))
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04 cut short", b"not a checkpoint at all", {"model": 1}, [1, 2], {"format": "plumbline 99"}],
)
def test_a_foreign_file_is_refused(tmp_path, content):
    path = tmp_path / "best.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(
        BackendError, match=r"best\.pt: not weights of a classifier of this line, expected format .*got"
    ):
        read_weights(path)


def test_code_in_a_file_is_not_run(tmp_path):
    torch.save({"format": "plumbline classifier 1", "model": torch.nn.Linear(2, 2)}, tmp_path / "best.pt")
    with pytest.raises(BackendError, match="cannot be read as such"):
        read_weights(tmp_path / "best.pt")


def test_a_file_cut_anywhere_is_refused(tmp_path):
    write_weights(tmp_path / "whole.pt", some_weights())
    data = (tmp_path / "whole.pt").read_bytes()
    for share in (0.1, 0.5, 0.9, 0.99):
        (tmp_path / "cut.pt").write_bytes(data[: int(len(data) * share)])
        with pytest.raises(BackendError, match=r"cut\.pt: not weights"):
            read_weights(tmp_path / "cut.pt")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(BackendError, match=r"none\.pt: no such file, expected trained weights; run the train stage"):
        read_weights(tmp_path / "none.pt")
