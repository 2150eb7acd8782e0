"""Draw scikit-learn's bundled handwritten digits (1,797 real samples of 8 x 8 pixels): each alone, or in scenes.

For scenes, the samples are dealt into pools first, and a scene only uses samples of its own pool. The pool is the
scene's `group`, which a split never parts: so no handwritten digit can stand in two splits, whatever the split's seed.
Digits alone have no group: who wrote which is not known.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
MAX_PLACEMENT_TRIES = 30


@dataclass(frozen=True)
class SceneStyle:
    """How scenes are drawn; the section `digits` of params.yaml says what each value is.

    Attributes:
        seed: Of everything random.
        scene_size: Pixels, square.
        min_digits: Wanted per scene.
        max_digits: Wanted per scene.
        min_size: Height of a digit in pixels, before it is cut to its ink.
        max_size: As `min_size`; at most `scene_size`.
    """

    seed: int
    scene_size: int
    min_digits: int
    max_digits: int
    min_size: int
    max_size: int


@dataclass(frozen=True)
class Scene:
    """One drawn image.

    Attributes:
        index: Number of the scene.
        image: BGR, shape (size, size, 3), uint8.
        boxes_xyxy: Shape (N, 4), float64 pixels, around the ink of each digit.
        class_ids: Shape (N,), 0..9.
        sample_ids: Shape (N,), index of each digit in scikit-learn's data set.
        pool: The pool that all its samples come from.
    """

    index: int
    image: Image
    boxes_xyxy: npt.NDArray[np.float64]
    class_ids: npt.NDArray[np.int64]
    sample_ids: npt.NDArray[np.int64]
    pool: int


def load_samples() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Return ink of shape (1797, 8, 8) scaled to 0..1, and classes of shape (1797,)."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.images / 16.0, digits.target.astype(np.int64)


def deal_pools(class_ids: npt.NDArray[np.int64], num_pools: int, seed: int) -> npt.NDArray[np.int64]:
    """Deal every sample to one pool so that each pool has nearly the same number of each class.

    Args:
        class_ids: Shape (N,).
        num_pools: At least 3, or three splits could not be disjoint.
        seed: Of the shuffle within each class.

    Returns:
        Pool of each sample, shape (N,).
    """
    rng = np.random.default_rng(seed)
    pools = np.empty(len(class_ids), dtype=np.int64)
    for class_id in np.unique(class_ids):
        members = rng.permutation(np.flatnonzero(class_ids == class_id))
        # Each class starts at another pool, or the first pools would hold the rest of every class.
        pools[members] = (np.arange(len(members)) + class_id) % num_pools
    return pools


def draw_single_digits(size: int) -> Iterator[tuple[Image, int]]:
    """Draw every sample alone, white ink on black, in the order of scikit-learn's data set.

    Args:
        size: Side of the square image, pixels.

    Yields:
        BGR image of shape (size, size, 3), uint8, and its class, 0..9.
    """
    inks, class_ids = load_samples()
    for ink, class_id in zip(inks, class_ids.tolist(), strict=True):
        # Cubic overshoots beside an edge.
        large = np.clip(cv2.resize(ink, (size, size), interpolation=cv2.INTER_CUBIC), 0, 1)
        grey = np.round(large * 255).astype(np.uint8)
        yield cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), class_id


def draw_scenes(num_scenes: int, num_pools: int, style: SceneStyle) -> Iterator[Scene]:
    """Draw the scenes 0, 1, 2...; scene i uses the samples of pool i modulo `num_pools`."""
    samples = load_samples()
    pools = deal_pools(samples[1], num_pools, style.seed)
    for index in range(num_scenes):
        pool = index % num_pools
        yield draw_scene(index, pool, np.flatnonzero(pools == pool), samples, style)


def draw_scene(
    index: int,
    pool: int,
    members: npt.NDArray[np.int64],
    samples: tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]],
    style: SceneStyle,
) -> Scene:
    """Draw scene number `index` from the samples `members` of one pool.

    The random state depends on the seed and the index alone, so that a scene stays the same when more are asked for.
    A digit that finds no free place is left out, so a crowded scene can hold fewer than `min_digits`; the first one
    always finds its place.
    """
    ink, class_ids = samples
    rng = np.random.default_rng([style.seed, index])
    image = _background(rng, style.scene_size)
    wanted = int(rng.integers(style.min_digits, style.max_digits + 1))
    boxes: list[tuple[int, int, int, int]] = []
    chosen: list[int] = []
    for sample_id in rng.permutation(members)[:wanted]:
        glyph = _glyph(rng, ink[sample_id], style)
        corner = _free_corner(rng, glyph.shape, boxes, style.scene_size)
        if corner is None:
            continue
        boxes.append(_paint(rng, image, glyph, corner))
        chosen.append(int(sample_id))
    noisy = image + rng.normal(0, 6, image.shape)
    return Scene(
        index=index,
        image=np.clip(noisy, 0, 255).astype(np.uint8),
        boxes_xyxy=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        class_ids=class_ids[chosen],
        sample_ids=np.array(chosen, dtype=np.int64),
        pool=pool,
    )


def _background(rng: np.random.Generator, size: int) -> npt.NDArray[np.float64]:
    """Return a smooth coloured texture: noise at three scales over one base colour, shape (size, size, 3)."""
    base = rng.uniform(40, 215, size=3)
    texture = np.zeros((size, size, 3))
    for cells, strength in ((3, 30.0), (9, 14.0), (27, 8.0)):
        coarse = rng.normal(0, strength, size=(cells, cells, 3)).astype(np.float32)
        texture += cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.clip(base + texture, 0, 255)


def _glyph(rng: np.random.Generator, ink: npt.NDArray[np.float64], style: SceneStyle) -> npt.NDArray[np.float64]:
    """Scale one 8 x 8 sample up, and cut it to its ink, so that the box is tight. Values 0..1."""
    side = int(rng.integers(style.min_size, style.max_size + 1))
    width = min(max(8, round(side * rng.uniform(0.8, 1.1))), style.scene_size)
    large = np.clip(cv2.resize(ink, (width, side), interpolation=cv2.INTER_CUBIC), 0, 1)
    rows, columns = np.where(large > 0.25)
    return large[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def _free_corner(
    rng: np.random.Generator, shape_hw: tuple[int, ...], taken: list[tuple[int, int, int, int]], size: int
) -> tuple[int, int] | None:
    """Return (x, y) where the glyph touches no other box, or None after `MAX_PLACEMENT_TRIES`."""
    height, width = shape_hw[0], shape_hw[1]
    for _ in range(MAX_PLACEMENT_TRIES):
        x = int(rng.integers(0, size - width + 1))
        y = int(rng.integers(0, size - height + 1))
        if all(x >= x2 or y >= y2 or x + width <= x1 or y + height <= y1 for x1, y1, x2, y2 in taken):
            return x, y
    return None


def _paint(
    rng: np.random.Generator,
    image: npt.NDArray[np.float64],
    glyph: npt.NDArray[np.float64],
    corner_xy: tuple[int, int],
) -> tuple[int, int, int, int]:
    """Blend the glyph into `image` in place, in a colour that stands out from what is under it; return its xyxy."""
    x, y = corner_xy
    height, width = glyph.shape
    under = image[y : y + height, x : x + width]
    mean = under.mean(axis=(0, 1))
    colour = np.where(mean > 127, mean - rng.uniform(70, 125, 3), mean + rng.uniform(70, 125, 3))
    alpha = glyph[..., None]
    under[:] = under * (1 - alpha) + np.clip(colour, 0, 255) * alpha
    return x, y, x + width, y + height
