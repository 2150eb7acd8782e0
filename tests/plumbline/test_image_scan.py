"""One look at an image file: whole or damaged, its size as people see it, its statistics and its hash."""

from __future__ import annotations

import hashlib
import struct

import cv2
import numpy as np
import pytest

from plumbline.image_scan import exif_orientation, perceptual_hash, scan_image, scan_images


def picture(width: int = 120, height: int = 80, seed: int = 0) -> np.ndarray:
    """Return a smooth BGR picture without symmetry."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 9, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def encode(suffix: str, image: np.ndarray | None = None) -> bytes:
    done, data = cv2.imencode(suffix, picture() if image is None else image)
    assert done
    return data.tobytes()


def with_exif(jpeg: bytes, orientation: int, order: str = "<") -> bytes:
    mark = b"II" if order == "<" else b"MM"
    tiff = mark + struct.pack(order + "HIHHHIHHI", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def scan(tmp_path, data: bytes, name: str = "image.jpg"):
    path = tmp_path / name
    path.write_bytes(data)
    return scan_image(path)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tiff"])
def test_a_whole_image_is_readable_with_its_size_and_bytes(tmp_path, suffix):
    data = encode(suffix)
    got = scan(tmp_path, data, f"image{suffix}")
    assert (got.readable, got.problem, got.width, got.height) == (True, "", 120, 80)
    assert got.sha256 == hashlib.sha256(data).hexdigest()
    assert 0 < got.phash < 2**64


@pytest.mark.parametrize("shape", [(80, 120), (80, 120, 4)])
def test_grey_and_transparent_images_are_readable(tmp_path, shape):
    got = scan(tmp_path, encode(".png", np.full(shape, 7, np.uint8)), "image.png")
    assert (got.readable, got.width, got.height) == (True, 120, 80)


def test_content_decides_not_the_name(tmp_path):
    assert scan(tmp_path, encode(".png"), "image.jpg").readable
    assert scan(tmp_path, encode(".jpg"), "image.png").readable


JPEG, PNG = encode(".jpg"), encode(".png")
# Of a picture this small a strict decoder can miss lost bytes; of a photograph it does not.
PHOTO = encode(".jpg", np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no image",
        JPEG[:3],
        JPEG[: len(JPEG) // 2],
        JPEG[: len(JPEG) // 2] + b"\xff\xd9",  # with a forged end
        PHOTO[:20000] + bytes(500) + PHOTO[20500:],
        PNG[:8],
        PNG[: len(PNG) // 2],
        PNG[:-12],  # without its end chunk
        PNG[:200] + bytes([PNG[200] ^ 1]) + PNG[201:],
        encode(".webp")[:100],
        encode(".bmp")[:1000],
        encode(".tiff")[:200],
    ],
    ids=range(13),
)
def test_a_damaged_image_is_a_result_with_a_problem(tmp_path, data):
    got = scan(tmp_path, data)
    assert not got.readable
    assert (got.width, got.height, got.phash) == (0, 0, 0)
    assert got.problem
    assert "\n" not in got.problem
    assert got.sha256 == hashlib.sha256(data).hexdigest()


def test_a_file_that_cannot_be_opened_is_a_result_too(tmp_path):
    got = scan_image(tmp_path / "gone.png")
    assert (got.readable, got.problem) == (False, "cannot be opened (No such file or directory)")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(10))
def test_exif_orientation_is_applied_as_cv2_does(tmp_path, orientation, order):
    data = with_exif(JPEG, orientation, order)
    got = scan(tmp_path, data)
    seen = cv2.imread(str(tmp_path / "image.jpg"))
    assert (got.height, got.width) == seen.shape[:2]
    # Not only the shape: the hash sees a picture that stands on its head.
    grey = cv2.cvtColor(seen, cv2.COLOR_BGR2GRAY)
    assert bin(got.phash ^ perceptual_hash(grey)).count("1") <= 6


@pytest.mark.parametrize(
    "data",
    [
        JPEG,
        b"",
        b"\xff\xd8\xff\xe1",
        b"\xff\xd8\xff\xe1\x00\x10Exif\0\0II*\0",
        with_exif(JPEG, 6).replace(b"II", b"XX"),
        with_exif(JPEG, 6).replace(struct.pack("<I", 8), struct.pack("<I", 60000)),
        with_exif(JPEG, 99),
    ],
)
def test_a_senseless_exif_block_means_upright(data):
    assert exif_orientation(data) == 1


def test_exif_is_found_behind_other_segments():
    comment = b"\xff\xfe" + struct.pack(">H", 6) + b"text"
    data = with_exif(JPEG, 8)
    assert exif_orientation(data[:2] + comment + data[2:]) == 8


def test_statistics_are_those_of_the_grey_image(tmp_path):
    grey = np.zeros((40, 40), np.uint8)
    grey[:, 20:] = 100
    got = scan(tmp_path, encode(".png", grey), "image.png")
    assert got.brightness == pytest.approx(50)
    assert got.contrast == pytest.approx(50)
    assert got.sharpness == pytest.approx(cv2.Laplacian(grey, cv2.CV_64F).var())


def test_blur_lowers_sharpness(tmp_path):
    sharp = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    first = scan(tmp_path, encode(".png", sharp))
    second = scan(tmp_path, encode(".png", cv2.GaussianBlur(sharp, (5, 5), 0)))
    assert second.sharpness < first.sharpness / 4


def distance(a: np.ndarray, b: np.ndarray) -> int:
    return (perceptual_hash(a) ^ perceptual_hash(b)).bit_count()


def test_near_duplicates_are_near_and_others_far():
    photos = [cv2.cvtColor(picture(seed=seed), cv2.COLOR_BGR2GRAY) for seed in range(6)]
    for photo in photos:
        smaller = cv2.resize(photo, (90, 60), interpolation=cv2.INTER_AREA)
        assert distance(photo, smaller) <= 6
        assert distance(photo, cv2.convertScaleAbs(photo, alpha=0.8, beta=20)) <= 6
        jpeg = cv2.imdecode(cv2.imencode(".jpg", photo, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_GRAYSCALE)
        assert distance(photo, jpeg) <= 6
    assert min(distance(a, b) for i, a in enumerate(photos) for b in photos[:i]) >= 12


def test_flat_images_of_any_size_and_shade_have_one_hash():
    flat = [np.full(shape, shade, np.uint8) for shape in ((9, 9), (480, 640), (1, 1)) for shade in (1, 77, 200, 255)]
    assert len({perceptual_hash(image) for image in flat}) == 1


def test_many_are_scanned_in_order_whatever_the_workers(tmp_path):
    paths = []
    for index in range(12):
        paths.append(tmp_path / f"{index}.png")
        paths[-1].write_bytes(encode(".png", picture(20 + index, 20, seed=index)) if index != 5 else b"rubbish")
    one, four = scan_images(paths, 1), scan_images(paths, 4)
    assert one == four == [scan_image(path) for path in paths]
    assert [got.width for got in one] == [20 + index if index != 5 else 0 for index in range(12)]


def test_bccd_is_whole_and_its_known_near_duplicates_are_near(bccd):
    paths = sorted((bccd / "JPEGImages").glob("*.jpg"))
    scans = dict(zip((path.stem for path in paths), scan_images(paths, 2), strict=True))
    assert all(got.readable and (got.width, got.height) == (640, 480) for got in scans.values())
    near = scans["BloodImage_00037"].phash ^ scans["BloodImage_00038"].phash
    assert near.bit_count() <= 6
    far = scans["BloodImage_00037"].phash ^ scans["BloodImage_00100"].phash
    assert far.bit_count() >= 14
