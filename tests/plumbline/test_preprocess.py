"""The letterbox: aspect ratio kept, and boxes find their way back."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline.errors import BackendError, DatasetError
from plumbline.runtime.artifact import Preprocessing
from plumbline.runtime.preprocess import preprocess, read_image

SPEC = Preprocessing()


@settings(max_examples=60, deadline=None)
@given(st.integers(8, 300), st.integers(8, 300), st.sampled_from([(64, 64), (96, 64), (160, 160)]))
def test_boxes_return_to_where_they_were(width, height, size_wh):
    image = np.zeros((height, width, 3), np.uint8)
    tensor, letterbox = preprocess(image, size_wh, SPEC)
    assert tensor.shape == (1, 3, size_wh[1], size_wh[0])
    assert tensor.flags["C_CONTIGUOUS"]
    left, top = letterbox.offset_xy
    inside = np.array([[0, 0, width, height], [1, 2, width / 2, height / 3]], dtype=np.float64)
    moved = inside * letterbox.scale + [left, top, left, top]
    assert moved.min() >= -1e-6
    assert (moved[:, 2] <= size_wh[0] + 1).all()
    assert (moved[:, 3] <= size_wh[1] + 1).all()
    assert np.allclose(letterbox.to_image(moved), inside, atol=1e-3)


def test_channels_range_and_padding():
    image = np.zeros((50, 100, 3), np.uint8)
    image[:] = (10, 20, 255)  # BGR
    before = image.copy()
    tensor, letterbox = preprocess(image, (100, 100), SPEC)
    assert letterbox.offset_xy == (0, 25)
    assert np.allclose(tensor[0, :, 50, 50], [1, 20 / 255, 10 / 255])
    assert np.allclose(tensor[0, :, 0, 0], 114 / 255)
    assert (image == before).all()


def test_equals_ultralytics_letterbox(photos):
    from plumbline.yolo import quiet_ultralytics

    quiet_ultralytics()
    from ultralytics.data.augment import LetterBox

    for photo in photos:
        want = LetterBox((96, 96), auto=False)(image=photo)[..., ::-1].transpose(2, 0, 1) / 255
        have = preprocess(photo, (96, 96), SPEC)[0][0]
        assert np.abs(want - have).max() < 1e-6


def test_clips_to_the_image():
    _, letterbox = preprocess(np.zeros((10, 10, 3), np.uint8), (20, 20), SPEC)
    assert letterbox.to_image(np.array([[-5.0, 4.0, 50.0, 8.0]])).tolist() == [[0, 2, 10, 4]]


SHAPES = st.tuples(st.integers(1, 200), st.integers(1, 200))
SIZES = st.sampled_from([(32, 32), (48, 32), (17, 40)])


def noise(shape_hw, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape_hw, 3), dtype=np.uint8)


@settings(max_examples=60, deadline=None)
@given(SHAPES, SIZES, st.sampled_from(["letterbox", "crop", "stretch"]), st.integers(0, 99))
def test_mean_and_std_are_taken_off_after_scaling(shape_hw, size_wh, resize, seed):
    image, before = noise(shape_hw, seed), noise(shape_hw, seed)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    plain, _ = preprocess(image, size_wh, Preprocessing(resize=resize))
    tensor, _ = preprocess(image, size_wh, Preprocessing(resize=resize, mean=mean, std=std))
    assert tensor.shape == (1, 3, size_wh[1], size_wh[0])
    assert tensor.dtype == np.float32
    assert tensor.flags["C_CONTIGUOUS"]
    want = (plain.astype(np.float64) - np.reshape(mean, (1, 3, 1, 1))) / np.reshape(std, (1, 3, 1, 1))
    assert np.abs(tensor - want).max() < 1e-5
    assert (image == before).all()


def test_equals_torchvisions_normalize():
    torch = pytest.importorskip("torch")
    from torchvision.transforms.v2.functional import normalize, to_dtype, to_image

    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    image = noise((32, 32))
    want = normalize(to_dtype(to_image(image[..., ::-1].copy()), torch.float32, scale=True), mean, std)
    have, _ = preprocess(image, (32, 32), Preprocessing(resize="crop", mean=tuple(mean), std=tuple(std)))
    assert np.abs(want.numpy() - have[0]).max() < 1e-6


@settings(max_examples=60, deadline=None)
@given(SHAPES, SIZES)
def test_stretch_is_a_plain_resize(shape_hw, size_wh):
    image = noise(shape_hw)
    tensor, _ = preprocess(image, size_wh, Preprocessing(resize="stretch", scale=1.0))
    want = cv2.resize(image, size_wh, interpolation=cv2.INTER_LINEAR)
    assert (tensor[0].transpose(1, 2, 0)[..., ::-1] == want).all()


@settings(max_examples=60, deadline=None)
@given(SHAPES, st.integers(8, 64))
def test_crop_is_the_middle_square_resized(shape_hw, side):
    image = noise(shape_hw)
    tensor, _ = preprocess(image, (side, side), Preprocessing(resize="crop", scale=1.0))
    short = min(shape_hw)
    top, left = (shape_hw[0] - short) // 2, (shape_hw[1] - short) // 2
    want = cv2.resize(image[top : top + short, left : left + short], (side, side), interpolation=cv2.INTER_LINEAR)
    assert (tensor[0].transpose(1, 2, 0)[..., ::-1] == want).all()


@settings(max_examples=100, deadline=None)
@given(SHAPES, st.tuples(st.integers(8, 80), st.integers(8, 80)))
def test_crop_keeps_the_aspect_ratio_to_a_pixel_and_all_of_one_side(shape_hw, size_wh):
    # Coordinates as colours: what the input shows tells where it was cut.
    height, width = shape_hw
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0], image[..., 1] = np.arange(width)[None], np.arange(height)[:, None]
    tensor, _ = preprocess(image, size_wh, Preprocessing(resize="crop", scale=1.0))
    seen_wh = [int(np.ptp(tensor[0, 2])) + 1, int(np.ptp(tensor[0, 1])) + 1]
    scale = max(size_wh[0] / width, size_wh[1] / height)
    want_wh = [min(width, size_wh[0] / scale), min(height, size_wh[1] / scale)]
    # Half a source pixel of rounding, and what linear interpolation does not reach of the outermost when it shrinks.
    assert np.abs(np.subtract(seen_wh, want_wh)).max() <= 1.6 + max(0.0, 1 / scale)


def test_a_strip_is_cropped_without_being_enlarged_first():
    # Filled first, 1 x 60,000 pixels would be 224 x 13 million.
    tensor, _ = preprocess(noise((60_000, 1)), (224, 224), Preprocessing(resize="crop"))
    assert tensor.shape == (1, 3, 224, 224)


@pytest.mark.parametrize("changed", [{"resize": "warp"}, {"interpolation": "cubic"}])
def test_what_this_runtime_does_not_know_is_refused(changed):
    with pytest.raises(BackendError, match="expected resize letterbox, crop, stretch and interpolation linear"):
        preprocess(noise((8, 8)), (8, 8), Preprocessing(**changed))


def test_read_image_turns_by_exif(tmp_path):
    from PIL import Image

    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20), "red").save(path, exif=exif)
    assert read_image(path).shape == (40, 20, 3)


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(DatasetError, match=r"no\.jpg: no such image file"):
        read_image(tmp_path / "no.jpg")
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"not an image")
    with pytest.raises(DatasetError, match=r"bad\.png: cannot be decoded"):
        read_image(bad)
    good = tmp_path / "good.png"
    cv2.imwrite(str(good), np.zeros((4, 6, 3), np.uint8))
    assert read_image(good).shape == (4, 6, 3)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_an_image_is_as_large_as_the_scan_says_however_it_is_turned(tmp_path, suffix, orientation):
    from PIL import Image

    from plumbline.image_scan import scan_image

    path = tmp_path / f"turned.{suffix}"
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(path, exif=exif)
    scan = scan_image(path)
    assert read_image(path).shape[:2] == (scan.height, scan.width)
    assert (scan.width, scan.height) == ((20, 30) if orientation >= 5 else (30, 20))
