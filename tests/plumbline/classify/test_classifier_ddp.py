"""Training in two processes, on CPUs: a batch is shared, and its gradient is that of the whole."""

import numpy as np
import pytest
import torch
from class_images import some_class_images, training_settings

from plumbline.classify.training import fitting, preparing
from plumbline.classify.training.devices import Devices
from plumbline.classify.training.keeping import Kept, best_path, kept_rows
from plumbline.classify.training.labels import labelled_images
from plumbline.classify.training.weights_file import read_weights
from plumbline.errors import TrainingError


class NoNorm(torch.nn.Module):
    """A network without batch norm and dropout, whose state is each process's own; at module level, to be pickled."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 5, stride=4), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(36, 3)
        )

    def forward(self, x):
        return self.layers(x)


class Worse(NoNorm):
    """A network that breaks in its third step."""

    def __init__(self):
        super().__init__()
        self.steps = 0

    def forward(self, x):
        self.steps += self.training
        return self.layers(x) * (torch.nan if self.steps == 3 else 1.0)


def fit(folder, data, world, network):
    """Train 2 epochs of batches of 7, 7 and 6, which two processes cannot share evenly; return rows and weights."""
    settings = training_settings(epochs=2, batch=7, class_weights="balanced")
    train, val = (labelled_images(*data, split) for split in ("train", "val"))
    devices = Devices("cpu", tuple(range(world)), "32-true")
    learner, weights, feed = preparing.prepare(train, val, 3, settings, devices, 0, print)
    torch.manual_seed(0)
    learner.network = network()
    work = folder / f"processes-{world}"
    work.mkdir()
    fitting.fit(learner, feed, Kept(work, folder / f"events-{world}", weights, 2, 9, []), devices, print)
    rows = kept_rows(work, print)
    return rows, read_weights(best_path(work, rows)).state_dict


@pytest.fixture
def data(tmp_path):
    return some_class_images(tmp_path / "data")


def test_two_processes_train_as_one(tmp_path, data):
    (rows, state), (two_rows, two_state) = (fit(tmp_path, data, world, NoNorm) for world in (1, 2))
    assert len(rows) == len(two_rows) == 2
    for row, other in zip(rows, two_rows, strict=True):
        assert row == pytest.approx(other, rel=1e-5)
    assert list(state) == list(two_state)
    for name, tensor in state.items():
        np.testing.assert_allclose(tensor, two_state[name], rtol=1e-4, atol=1e-6)


def test_an_error_of_another_process_is_found_in_its_traceback():
    text = "Traceback:\n  File x\nplumbline.errors.TrainingError: epoch 2, batch 1: what; do this\n"
    with pytest.raises(TrainingError, match=r"^epoch 2, batch 1: what; do this$"), fitting._said_as_ours():
        raise torch.multiprocessing.ProcessRaisedException(text, 0, 1)
    text = f"Traceback:\nValueError: {fitting.SINGLE_VALUE}, got input size [1, 8]\n"
    with pytest.raises(TrainingError, match=r"^a batch has one image for a device"), fitting._said_as_ours():
        raise torch.multiprocessing.ProcessRaisedException(text, 0, 1)
    with pytest.raises(torch.multiprocessing.ProcessRaisedException), fitting._said_as_ours():
        raise torch.multiprocessing.ProcessRaisedException("Traceback:\nKeyError: 3\n", 0, 1)


@pytest.mark.long
def test_an_error_in_another_process_is_told_as_one_line(tmp_path, data):
    with pytest.raises(TrainingError, match=r"^epoch 1, batch 3: the loss is nan, expected a number; .*params\.yaml$"):
        fit(tmp_path, data, 2, Worse)


def test_a_batch_of_fewer_images_than_devices_is_refused(tmp_path, data):
    with pytest.raises(TrainingError, match=r"a batch has 4 images for 7 devices, expected one for each; raise train"):
        fit(tmp_path, data, 7, NoNorm)
