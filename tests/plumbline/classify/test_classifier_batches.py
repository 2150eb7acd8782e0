"""What a classifier sees of its images: as a device does on val, changed at random in training."""

from collections import Counter

import cv2
import numpy as np
import pytest
import torch
from class_images import write_class_images
from hypothesis import given
from hypothesis import strategies as st

from plumbline.classify.training.augmentation import Augmentation, affine_matrix, augment, recolored
from plumbline.classify.training.batches import Batch, BatchOrder, Feeding, Images, Share
from plumbline.classify.training.labels import labelled_images
from plumbline.dataset_images import load_image
from plumbline.runtime.artifact import Preprocessing
from plumbline.runtime.preprocess import preprocess

NOTHING = Augmentation(0.0, 0.0, 0.0, 0.0, 0.0)
EVERYTHING = Augmentation(flip_horizontal=0.5, rotate_degrees=20, shift=0.1, zoom=0.2, color_jitter=0.3)
ALONE = Share()
CLASS_WEIGHTS = np.array([0.5, 1.0, 2.0])


def images_of(labelled, augmentation=None, share=ALONE, resize="letterbox", seed=3):
    normalised = Preprocessing(resize=resize, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    return Images(labelled, Feeding(24, normalised, augmentation, seed, CLASS_WEIGHTS), share), normalised


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Ten images of 20 x 31 pixels, each of one of three classes."""
    folder = tmp_path_factory.mktemp("images")
    data = write_class_images(folder, {"train": [2, 0, 1, 1, 0, 2, 2, 1, 0, 0]}, size_wh=(20, 31))
    return labelled_images(*data, "train")


@pytest.mark.parametrize("resize", ["letterbox", "crop", "stretch"])
def test_without_augmentation_the_network_sees_bit_for_bit_what_a_device_shows_it(labelled, resize):
    images, normalised = images_of(labelled, resize=resize)
    expected = [preprocess(load_image(labelled.dataset, path), (24, 24), normalised)[0][0] for path in labelled.paths]
    tensor, class_ids, total_weight = images[Batch(0, np.array([4, 0, 7]))]
    assert tensor.dtype == torch.float32
    assert np.array_equal(tensor.numpy(), np.stack([expected[row] for row in (4, 0, 7)]))
    assert class_ids.tolist() == [0, 2, 1]
    assert float(total_weight) == 3.5
    images.decode_all()
    assert np.array_equal(images[Batch(5, np.arange(10))][0].numpy(), np.stack(expected))


def epoch_of(labelled, epoch, *, batch=4, workers=0, share=ALONE, in_memory=True):
    """Return what comes in one epoch: pixels by row of the split, and class ids in the order that they came."""
    images, _ = images_of(labelled, EVERYTHING, share)
    if in_memory:
        images.decode_all()
    order = BatchOrder(10, batch, seed=3)
    order.set_epoch(epoch)
    batches = list(torch.utils.data.DataLoader(images, batch_size=None, sampler=order, num_workers=workers))
    order.set_epoch(epoch)
    rows = np.concatenate([np.array_split(rows, share.world)[share.rank] for _, rows in order])
    pixels = torch.cat([tensor for tensor, _, _ in batches]).numpy()
    return dict(zip(rows.tolist(), pixels, strict=True)), torch.cat([ids for _, ids, _ in batches]).tolist()


def test_changes_depend_on_seed_epoch_and_image_alone(labelled):
    first, class_ids = epoch_of(labelled, 1)
    assert sorted(first) == list(range(10))
    assert Counter(class_ids) == Counter(labelled.class_ids.tolist())
    for other, ids in (
        epoch_of(labelled, 1, workers=2),
        epoch_of(labelled, 1, in_memory=False),
        epoch_of(labelled, 1, batch=3),
    ):
        assert all(np.array_equal(first[row], other[row]) for row in range(10))
        assert Counter(ids) == Counter(class_ids)
    other, _ = epoch_of(labelled, 2)
    assert not any(np.array_equal(first[row], other[row]) for row in range(10))


def test_processes_share_a_batch(labelled):
    whole, _ = epoch_of(labelled, 1)
    parts = [epoch_of(labelled, 1, share=Share(rank, 3))[0] for rank in range(3)]
    assert sorted(row for part in parts for row in part) == list(range(10))
    assert all(np.array_equal(whole[row], part[row]) for part in parts for row in part)
    weights = [images_of(labelled, share=Share(rank, 3))[0][Batch(0, np.arange(4))][2] for rank in range(3)]
    assert {float(weight) for weight in weights} == {4.5}  # of the whole batch: 2 + 0.5 + 1 + 1


def test_decoded_images_stay_out_of_memory_that_they_do_not_fit(labelled):
    images, _ = images_of(labelled)
    images.decode_all(limit=10 * 24 * 24 * 3 - 1)
    assert images._decoded is None
    images.decode_all(limit=10 * 24 * 24 * 3)
    assert images._decoded is not None


@given(num=st.integers(1, 300), batch=st.integers(1, 40), seed=st.integers(0, 5), epoch=st.integers(0, 3))
def test_every_image_comes_once_in_batches_of_nearly_one_size(num, batch, seed, epoch):
    order = BatchOrder(num, batch, seed=seed, first_epoch=epoch)
    batches = list(order)
    sizes = [len(rows) for _, rows in batches]
    assert len(batches) == len(order)
    assert sorted(np.concatenate([rows for _, rows in batches]).tolist()) == list(range(num))
    assert max(sizes) <= batch
    assert max(sizes) - min(sizes) <= 1
    assert {number for number, _ in batches} == {epoch}
    again = BatchOrder(num, batch, seed=seed)
    again.set_epoch(epoch)
    assert all(np.array_equal(a.rows, b.rows) for a, b in zip(batches, again, strict=True))


def test_epochs_and_seeds_have_other_orders():
    orders = [
        np.concatenate([rows for _, rows in BatchOrder(50, 8, seed=s, first_epoch=e)])
        for s, e in ((0, 0), (0, 1), (1, 0))
    ]
    assert len({tuple(order.tolist()) for order in orders}) == 3
    unshuffled = np.concatenate([rows for _, rows in BatchOrder(50, 8, seed=None, first_epoch=3)])
    assert unshuffled.tolist() == list(range(50))


# Augmentation


@pytest.fixture
def photo():
    return np.random.default_rng(0).integers(0, 256, (12, 17, 3), dtype=np.uint8)


def warped(image, **how):
    how = {"degrees": 0.0, "scale": 1.0, "shift_xy": (0.0, 0.0), "mirrored": False} | how
    height, width = image.shape[:2]
    matrix = affine_matrix((width, height), **how)
    return cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)


def test_the_matrix_moves_pixels_as_slices_and_turns_do(photo):
    assert np.array_equal(warped(photo), photo)
    assert np.array_equal(warped(photo, mirrored=True), photo[:, ::-1])
    assert np.array_equal(warped(photo, shift_xy=(3.0, -2.0))[:-2, 3:], photo[2:, :-3])
    assert np.array_equal(warped(photo, degrees=180.0), photo[::-1, ::-1])
    square = photo[:, :12]
    assert np.array_equal(warped(square, degrees=90.0), np.rot90(square))
    assert np.array_equal(warped(square, degrees=90.0, mirrored=True), np.rot90(square[:, ::-1]))


def test_zoom_is_about_the_middle():
    canvas = np.zeros((33, 33, 3), np.uint8)
    canvas[12:21, 12:21] = 255
    rows, columns = np.nonzero(warped(canvas, scale=2.0)[..., 0] > 128)
    assert (rows.min() + rows.max(), columns.min() + columns.max()) == (32, 32)
    assert 16 <= rows.max() - rows.min() + 1 <= 18


def test_augmentation_leaves_its_input_and_does_nothing_when_nothing_is_asked(photo):
    before = photo.copy()
    changed = augment(photo, EVERYTHING, np.random.default_rng(1))
    assert np.array_equal(photo, before)
    assert not np.array_equal(changed, photo)
    assert (changed.shape, changed.dtype) == (photo.shape, photo.dtype)
    assert np.array_equal(augment(photo, NOTHING, np.random.default_rng(1)), photo)


def test_one_setting_does_not_change_what_another_draws(photo):
    turned = augment(photo, Augmentation(0.0, 20, 0.0, 0.0, 0.0), np.random.default_rng(4))
    also_recolored = augment(photo, Augmentation(0.0, 20, 0.0, 0.0, 0.3), np.random.default_rng(4))
    draws = np.random.default_rng(4).random(8)
    colors = [1 + 0.3 * (2 * draw - 1) for draw in draws[5:]]
    assert np.array_equal(also_recolored, recolored(turned, *colors))


def test_a_flip_of_probability_one_always_mirrors(photo):
    for seed in range(5):
        flipped = augment(photo, Augmentation(1.0, 0.0, 0.0, 0.0, 0.0), np.random.default_rng(seed))
        assert np.array_equal(flipped, photo[:, ::-1])


@pytest.mark.parametrize(("field", "high"), [("rotate_degrees", 30.0), ("shift", 0.2), ("zoom", 0.3)])
def test_moves_stay_within_their_limits(field, high, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "plumbline.classify.training.augmentation.affine_matrix",
        lambda size_wh, **how: seen.append(how) or affine_matrix(size_wh, **how),
    )
    how = Augmentation(
        **{"flip_horizontal": 0, "rotate_degrees": 0, "shift": 0, "zoom": 0, "color_jitter": 0, field: high}
    )
    for seed in range(200):
        augment(np.zeros((20, 10, 3), np.uint8), how, np.random.default_rng(seed))
    values = {
        "rotate_degrees": np.array([[call["degrees"]] for call in seen]),
        "shift": np.array([call["shift_xy"] for call in seen]) / (10, 20),
        "zoom": np.array([[call["scale"] - 1] for call in seen]),
    }
    for name, value in values.items():
        if name == field:
            assert (np.abs(value) <= high).all()
            assert (value.min(axis=0) < -0.9 * high).all()
            assert (value.max(axis=0) > 0.9 * high).all()
        else:
            assert not value.any()


def test_recoloring(photo):
    assert np.array_equal(recolored(photo, 1.0, 1.0, 1.0), photo)
    assert np.array_equal(recolored(photo // 2, 2.0, 1.0, 1.0), photo // 2 * 2)
    grey = recolored(photo, 1.0, 1.0, 0.0)
    assert np.abs(np.ptp(grey.astype(int), axis=2)).max() == 0
    assert np.abs(grey[..., 0] - cv2.cvtColor(photo, cv2.COLOR_BGR2GRAY).astype(int)).max() <= 1
    assert np.ptp(recolored(photo, 1.0, 0.0, 1.0).astype(int)) <= 1
