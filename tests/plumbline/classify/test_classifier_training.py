"""Training of classifiers from labelled images to best.pt; what resumes is in test_classifier_resume.py."""

import dataclasses
import hashlib

import numpy as np
import pandas as pd
import pytest
import torch
from class_images import annotation_row, some_class_images, training_settings, write_class_images
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from plumbline.classify.network import load_network
from plumbline.classify.training import keeping, train
from plumbline.classify.training.devices import resolve_devices
from plumbline.errors import TrainingError
from plumbline.manifest import ANNOTATIONS_SCHEMA, table
from plumbline.networks import count_parameters
from plumbline.runtime.preprocess import preprocess, read_image
from plumbline.training_curves import best_epoch

COLUMNS = ["epoch", "train_loss", "val_loss", "learning_rate", "val_top1", "val_macro_f1"]


def run(folder, settings=None, data=None, say=print):
    folder.mkdir(parents=True, exist_ok=True)
    dataset, splits = data or some_class_images(folder / "data")
    settings = settings or training_settings()
    return train(dataset, splits, settings, work=folder / "work", tensorboard=folder / "events", say=say)


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run, with its data, folder and lines."""
    folder, lines = tmp_path_factory.mktemp("trained"), []
    data = some_class_images(folder / "data", num_train=30)
    return run(folder, training_settings(epochs=8), data, lines.append), data, folder, lines


def test_the_table_of_epochs_and_the_lines(trained):
    result, _, _, lines = trained
    assert list(result.epochs) == COLUMNS
    assert result.epochs["epoch"].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert np.isfinite(result.epochs.to_numpy(float)).all()
    assert result.epochs["train_loss"].iloc[-1] < result.epochs["train_loss"].iloc[0]
    # Up in the first epoch, then down.
    assert result.epochs["learning_rate"].iloc[0] == 0.004
    assert result.epochs["learning_rate"].is_monotonic_decreasing
    assert (result.score, result.resumed_from_epoch) == ("val_top1", 0)
    assert len(lines) == 8
    assert lines[2].startswith("train: epoch 3/8  loss ")
    assert " s/epoch" in lines[2]
    assert lines[-1].endswith(" 0 s left")


def test_the_weights_are_those_of_the_best_epoch_and_score_as_the_table_says(trained):
    result, (dataset, splits), _, _ = trained
    network = load_network(result.weights)
    ids = splits.loc[splits["split"] == "val", "image_id"]
    paths = dataset.images.set_index("image_id").loc[ids, "path"]
    inputs = [preprocess(read_image(dataset.root / path), (16, 16), network.preprocessing)[0] for path in paths]
    with torch.no_grad():
        answers = [int(network.module(torch.from_numpy(tensor))[0].argmax()) for tensor in inputs]
    truth = dataset.annotations.set_index("image_id").loc[ids, "class_id"]
    right = float((np.array(answers) == truth.to_numpy()).mean())
    assert right == result.epochs["val_top1"].max()
    assert right > 0.8
    assert result.num_parameters == count_parameters(network.module)
    assert result.gflops > 0


def test_tensorboard_has_each_epoch_once(trained):
    result, _, folder, _ = trained
    events = EventAccumulator(str(folder / "events")).Reload()
    tags = ["learning_rate", "train/loss", "val/loss", "val/macro_f1", "val/top1"]
    assert sorted(events.Tags()["scalars"]) == tags
    losses = events.Scalars("val/loss")
    assert [event.step for event in losses] == result.epochs["epoch"].tolist()
    np.testing.assert_allclose([event.value for event in losses], result.epochs["val_loss"], rtol=1e-6)


def test_event_files_of_an_earlier_run_go(tmp_path):
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / "events.out.tfevents.1.old").write_bytes(b"old")
    (tmp_path / "events" / "kept.txt").write_text("not ours")
    run(tmp_path, training_settings(epochs=1))
    names = sorted(path.name for path in (tmp_path / "events").iterdir())
    assert len(names) == 2
    assert "kept.txt" in names
    assert "events.out.tfevents.1.old" not in names


def test_one_seed_gives_one_file_and_nothing_else_is_printed(tmp_path, capfd):
    settings = training_settings(epochs=2, class_weights="balanced", focal_gamma=1.0)
    data = some_class_images(tmp_path / "data")
    torch.manual_seed(1)
    first = run(tmp_path / "a", settings, data, say=lambda _line: None)
    torch.manual_seed(2)
    second = run(tmp_path / "b", settings, data, say=lambda _line: None)
    other = run(tmp_path / "c", training_settings(epochs=2, seed=1), data, say=lambda _line: None)
    assert sha256(first.weights) == sha256(second.weights)
    assert first.epochs.equals(second.epochs)
    assert sha256(first.weights) != sha256(other.weights)
    assert capfd.readouterr() == ("", "")
    assert not torch.are_deterministic_algorithms_enabled()
    left = sorted(path.name for path in (tmp_path / "a" / "work").iterdir() if not path.name.startswith("best-"))
    assert left == ["best.pt", "last.ckpt"]


def test_training_stops_when_patience_is_at_its_end(tmp_path):
    # A learning rate that changes nothing: the first epoch stays the best, or one that equals it but for the loss.
    settings = training_settings(epochs=30, patience=2, learning_rate=1e-12, warmup_epochs=0)
    result = run(tmp_path, settings)
    rows = result.epochs.to_dict("records")
    assert len(rows) < 30
    best = max(rows, key=lambda row: (row["val_top1"], -row["val_loss"]))
    assert len(rows) - best["epoch"] == 2


def test_the_best_epoch_is_that_of_the_lower_loss_among_equals():
    rows = [
        {"epoch": n + 1, "val_top1": top1, "val_loss": loss}
        for n, (top1, loss) in enumerate(((0.9, 0.5), (0.9, 0.3), (0.9, 0.3), (0.8, 0.1)))
    ]
    assert keeping.best_of(rows)["epoch"] == 2
    assert best_epoch(pd.DataFrame(rows), "val_top1") == 2, "the picture and metrics.json name the same"


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_the_other_optimizers_learn(tmp_path, optimizer):
    rate = 0.02 if optimizer == "SGD" else 0.004
    result = run(tmp_path, training_settings(optimizer=optimizer, learning_rate=rate, epochs=6))
    assert result.epochs["train_loss"].iloc[-1] < 0.8 * result.epochs["train_loss"].iloc[0]


def test_a_class_without_images_in_train_is_named_and_weighs_nothing(tmp_path):
    lines = []
    data = write_class_images(tmp_path / "data", {"train": [0, 2] * 8, "val": [0, 2, 1], "test": [1]})
    result = run(tmp_path, training_settings(epochs=1, class_weights="balanced"), data, lines.append)
    assert lines[0] == "train: no image of the split train is of class right: it cannot be learned"
    assert np.isfinite(result.epochs["val_loss"]).all()


# Errors


def test_a_loss_that_is_no_number_stops_at_once_and_says_where(tmp_path):
    with pytest.raises(TrainingError, match=r"epoch 1, batch 2: the loss is (nan|inf), expected .*learning_rate"):
        run(tmp_path, training_settings(learning_rate=1e30, warmup_epochs=0, optimizer="SGD"))


def test_a_batch_too_small_for_batch_norm_is_one_line(tmp_path):
    """Three images in batches of two leave one alone, and a ResNet on 32 pixels ends in one pixel."""
    settings = training_settings(model="resnet18", image_size=32, batch=2)
    with pytest.raises(TrainingError, match=r"^a batch has one image for a device, .* raise train\.classify\.batch"):
        run(tmp_path, settings, some_class_images(tmp_path / "data", num_train=3, num_val=2))


def test_what_needs_a_gpu_is_refused_without_one(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(TrainingError, match=r"precision is bf16 and there is no GPU to train on, expected fp32"):
        run(tmp_path / "a", training_settings(precision="bf16", device="auto"))
    with pytest.raises(TrainingError, match=r"device is 0, expected the index of a GPU, got a machine with 0"):
        run(tmp_path / "b", training_settings(device=0))


def test_devices_where_there_are_gpus():
    assert resolve_devices("auto", "fp32", num_gpus=3).indices == (0, 1, 2)
    assert resolve_devices(1, "bf16", num_gpus=3) == resolve_devices(1, "bf16", num_gpus=2)
    assert resolve_devices(1, "bf16", num_gpus=3).precision == "bf16-mixed"
    assert resolve_devices("cpu", "fp32", num_gpus=3).accelerator == "cpu"
    with pytest.raises(TrainingError, match="is 3, expected the index of a GPU, got a machine with 3"):
        resolve_devices(3, "fp32", num_gpus=3)
    with pytest.raises(TrainingError, match="no GPU to train on"):
        resolve_devices("cpu", "bf16", num_gpus=3)


def with_rows(data, keep, *rows):
    """Return the data with only those annotations whose image_id is in `keep`, and more rows."""
    dataset, splits = data
    kept = dataset.annotations[dataset.annotations["image_id"].isin(keep)].to_dict("records")
    return dataclasses.replace(dataset, annotations=table([*kept, *rows], ANNOTATIONS_SCHEMA)), splits


@pytest.mark.parametrize(
    ("keep", "rows", "message"),
    [
        (range(1, 31), [], r"images/000\.png: no label, expected one class; label every image"),
        (range(2, 31), [], r"images/000\.png: no label, .* \(and 1 more such images\)"),
        (
            range(31),
            [annotation_row(3, 40, 1, "right")],
            r"in/labels\.csv:42: a second label, 'right', expected one for each image",
        ),
        (
            range(1, 31),
            [annotation_row(0, 7, 0, "left", (1, 2, 5, 6))],
            r"in/labels\.csv:9: a box of class 'left', expected one label for the whole image; set task: detect",
        ),
        (
            range(1, 31),
            [annotation_row(0, 7, -1, "cat")],
            r"in/labels\.csv:9: class 'cat', expected one of dataset\.class_names",
        ),
    ],
)
def test_images_without_exactly_one_label_are_refused(tmp_path, keep, rows, message):
    data = with_rows(some_class_images(tmp_path / "data"), keep, *rows)
    with pytest.raises(TrainingError, match=message):
        run(tmp_path, data=data)


def test_labels_of_test_images_are_not_looked_at(tmp_path):
    # Images 29 and 30 are the test split's.
    data = with_rows(some_class_images(tmp_path / "data"), range(29))
    assert len(run(tmp_path, training_settings(epochs=1), data).epochs) == 1


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"train": [0, 1]}, "the split val has no images"),
        ({"val": [0, 1]}, "the split train has no images"),
        ({"train": [1, 1, 1], "val": [0, 1]}, "every image of the split train is of class 'right'"),
        ({"train": [1, 2, 1], "val": [0, 0]}, "no image of the split val is of a class that the split train has"),
    ],
)
def test_splits_that_cannot_be_learned_from_are_refused(tmp_path, classes, message):
    with pytest.raises(TrainingError, match=message):
        run(tmp_path, data=write_class_images(tmp_path / "data", classes))


def test_an_unknown_model_is_refused_with_the_nearest_name(tmp_path):
    with pytest.raises(TrainingError, match="lenet"):
        run(tmp_path, training_settings(model="leenet"))
