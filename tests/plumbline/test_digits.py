"""Handwritten digits, in scenes (labelled tightly, never sharing handwriting between pools) and alone."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from plumbline.boxes import box_iou
from plumbline.digits import Scene, SceneStyle, deal_pools, draw_scene, draw_scenes, draw_single_digits, load_samples

STYLE = SceneStyle(seed=0, scene_size=160, min_digits=2, max_digits=6, min_size=20, max_size=56)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return list(draw_scenes(40, 20, STYLE))


def same(a: Scene, b: Scene) -> bool:
    return all(np.array_equal(getattr(a, field.name), getattr(b, field.name)) for field in dataclasses.fields(Scene))


def test_every_sample_is_in_one_pool_and_pools_are_alike():
    _, class_ids = load_samples()
    pools = deal_pools(class_ids, 20, seed=3)
    assert pools.shape == (1797,)
    counts = np.array([np.bincount(class_ids[pools == pool], minlength=10) for pool in range(20)])
    assert np.all(counts.max(axis=0) - counts.min(axis=0) <= 1)
    sizes = counts.sum(axis=1)
    assert sizes.max() - sizes.min() <= 10


def test_pools_depend_on_the_seed_alone():
    _, class_ids = load_samples()
    assert np.array_equal(deal_pools(class_ids, 20, 0), deal_pools(class_ids, 20, 0))
    assert not np.array_equal(deal_pools(class_ids, 20, 0), deal_pools(class_ids, 20, 1))


def test_no_handwriting_is_in_two_pools(scenes):
    _, class_ids = load_samples()
    pools = deal_pools(class_ids, 20, STYLE.seed)
    for scene in scenes:
        assert scene.pool == scene.index % 20
        assert set(pools[scene.sample_ids]) == {scene.pool}
        assert len(set(scene.sample_ids)) == len(scene.sample_ids)


def test_labels_are_those_of_the_samples(scenes):
    _, class_ids = load_samples()
    for scene in scenes:
        assert np.array_equal(scene.class_ids, class_ids[scene.sample_ids])


def test_boxes_are_inside_apart_and_of_the_sizes_asked_for(scenes):
    for scene in scenes:
        boxes = scene.boxes_xyxy
        assert STYLE.min_digits <= len(boxes) <= STYLE.max_digits
        assert boxes.min() >= 0
        assert boxes.max() <= STYLE.scene_size
        heights = boxes[:, 3] - boxes[:, 1]
        assert heights.max() <= STYLE.max_size
        assert heights.min() >= STYLE.min_size / 2
        assert np.array_equal(box_iou(boxes, boxes) > 0, np.eye(len(boxes), dtype=bool))


@pytest.mark.parametrize("index", range(10))
def test_a_box_is_tight_around_the_ink(index):
    samples = load_samples()
    style = dataclasses.replace(STYLE, min_digits=1, max_digits=1, min_size=40)
    drawn = draw_scene(index, 0, np.array([index * 100]), samples, style)
    # Without samples, the same background is left.
    bare = draw_scene(index, 0, np.array([], dtype=np.int64), samples, style)
    assert bare.boxes_xyxy.shape == (0, 4)
    change = cv2.blur(np.abs(drawn.image.astype(float) - bare.image.astype(float)).mean(axis=2), (3, 3))
    rows, columns = np.where(change > 30)
    ink = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    assert np.abs(drawn.boxes_xyxy[0] - ink).max() <= 4


def test_drawing_again_gives_the_same(scenes):
    assert all(same(a, b) for a, b in zip(scenes, draw_scenes(40, 20, STYLE), strict=True))


def test_more_scenes_leave_the_first_ones_as_they_were(scenes):
    assert all(same(a, b) for a, b in zip(scenes, draw_scenes(60, 20, STYLE), strict=False))


def test_another_seed_draws_other_scenes(scenes):
    (other,) = draw_scenes(1, 20, dataclasses.replace(STYLE, seed=1))
    assert not np.array_equal(other.image, scenes[0].image)


def test_digits_as_large_as_the_scene_are_drawn():
    style = dataclasses.replace(STYLE, scene_size=32, min_digits=16, max_digits=16, min_size=32, max_size=32)
    for scene in draw_scenes(30, 3, style):
        assert len(scene.boxes_xyxy) >= 1
        assert scene.boxes_xyxy.max() <= 32


@pytest.mark.parametrize("size", [16, 32, 33])
def test_single_digits_are_the_samples_white_on_black(size):
    inks, class_ids = load_samples()
    drawn = list(draw_single_digits(size))

    assert [class_id for _, class_id in drawn] == class_ids.tolist()
    for (image, _), ink in zip(drawn, inks, strict=True):
        assert image.shape == (size, size, 3)
        assert image.dtype == np.uint8
        assert np.ptp(image, axis=2).max() == 0
        # Not exactly: the cubic is smooth where the samples are cells.
        small = cv2.resize(image[..., 0], (8, 8), interpolation=cv2.INTER_AREA) / 255
        assert np.abs(small - ink).mean() < 0.09


def test_all_single_digits_differ():
    assert len({image.tobytes() for image, _ in draw_single_digits(32)}) == 1797
