"""One look at an image file: its size as people see it, its statistics and its hash, whatever its type."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from plumbline.image_scan import perceptual_hash, reduction, scan_bytes, scan_image


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


def test_content_decides_not_the_name(tmp_path):
    assert scan(tmp_path, encode(".png"), "image.jpg").readable
    assert scan(tmp_path, encode(".jpg"), "image.png").readable


JPEG = encode(".jpg")


def test_a_file_that_cannot_be_opened_is_a_result_too(tmp_path):
    got = scan_image(tmp_path / "gone.png")
    assert (got.readable, got.problem) == (False, "cannot be opened (No such file or directory)")


def exif_block(orientation: int, order: str = "<") -> bytes:
    mark = b"II" if order == "<" else b"MM"
    return mark + struct.pack(order + "HIHHHIHHI", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def turned(kind: str, orientation: int, order: str = "<") -> bytes:
    """Return a picture of 120 x 80 stored pixels with an EXIF orientation, as this type of file carries it."""
    block = exif_block(orientation, order)
    if kind == "jpeg":
        return with_exif(JPEG, orientation, order)
    if kind == "png":
        chunk = struct.pack(">I", len(block)) + b"eXIf" + block + struct.pack(">I", zlib.crc32(b"eXIf" + block))
        data = encode(".png")
        return data[:33] + chunk + data[33:]
    image, file = Image.fromarray(picture()[..., ::-1].copy()), io.BytesIO()
    if kind == "tiff":
        image.save(file, "TIFF", tiffinfo={274: orientation})
    else:
        image.save(file, "WEBP", quality=90, exif=block if kind == "webp" else b"Exif\0\0" + block)
    return file.getvalue()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "webp with a prefix", "tiff"])
def test_exif_orientation_is_applied_as_cv2_does(tmp_path, kind, orientation, order):
    got = scan(tmp_path, turned(kind, orientation, order))
    # imread of cv2 5.0.0 returns nothing for a TIFF that lies on its side; imdecode does.
    data = np.fromfile(tmp_path / "image.jpg", np.uint8)
    seen = cv2.imdecode(data, cv2.IMREAD_COLOR) if kind == "tiff" else cv2.imread(str(tmp_path / "image.jpg"))
    assert (got.height, got.width) == seen.shape[:2]
    assert got.exif_orientation == (orientation if 1 <= orientation <= 8 else 1)
    # Not only the shape: the hash sees a picture that stands on its head.
    grey = cv2.cvtColor(seen, cv2.COLOR_BGR2GRAY)
    assert bin(got.phash ^ perceptual_hash(grey)).count("1") <= 6


@pytest.mark.parametrize(
    "data",
    [
        JPEG,
        b"\xff\xd8\xff\xe1" + JPEG[2:],
        with_exif(JPEG, 6).replace(b"II", b"XX"),
        with_exif(JPEG, 6).replace(struct.pack("<I", 8), struct.pack("<I", 60000)),
        with_exif(JPEG, 99),
    ],
    ids=range(5),
)
def test_a_senseless_exif_block_means_upright(data):
    assert scan_bytes(data).exif_orientation == 1


def test_exif_is_found_behind_other_segments():
    comment = b"\xff\xfe" + struct.pack(">H", 6) + b"text"
    data = with_exif(JPEG, 8)
    assert scan_bytes(data[:2] + comment + data[2:]).exif_orientation == 8


def test_statistics_are_those_of_the_reduced_grey_image(tmp_path):
    grey = np.zeros((40, 40), np.uint8)
    grey[:, 20:] = 100
    large = np.kron(grey, np.ones((8, 8), np.uint8))
    assert (reduction(40, 40), reduction(320, 320)) == (1, 4)
    once, reduced = scan(tmp_path, encode(".png", grey)), scan(tmp_path, encode(".png", large))
    assert once.brightness == pytest.approx(50)
    assert once.contrast == pytest.approx(50)
    assert once.sharpness == pytest.approx(cv2.Laplacian(grey, cv2.CV_64F).var())
    assert (reduced.brightness, reduced.contrast) == (once.brightness, once.contrast)
    assert reduced.sharpness == pytest.approx(cv2.Laplacian(large[::4, ::4], cv2.CV_64F).var())


@pytest.mark.parametrize("size_wh", [(500, 375), (640, 480), (333, 250), (150, 100), (61, 64), (1023, 257)])
def test_the_same_picture_measures_alike_in_every_type(size_wh):
    image = picture(*size_wh)
    exact = scan_bytes(encode(".png", image))
    assert (exact.width, exact.height) == size_wh
    for suffix in (".jpg", ".bmp", ".webp", ".tiff"):
        got = scan_bytes(encode(suffix, image))
        assert (got.width, got.height) == size_wh
        assert (got.phash ^ exact.phash).bit_count() <= 2
        assert got.brightness == pytest.approx(exact.brightness, abs=1)
        assert got.contrast == pytest.approx(exact.contrast, rel=0.02)
        assert got.sharpness == pytest.approx(exact.sharpness, rel=0.15)


def kinds_of_pixels() -> dict[str, bytes]:
    """Return a picture as files of unusual pixels: name -> bytes."""
    colour = picture(320, 240)
    grey, image = cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY), Image.fromarray(colour[..., ::-1].copy())
    deep = colour.astype(np.uint16) * 257

    def saved(mode: str, kind: str, **options: object) -> bytes:
        file = io.BytesIO()
        image.convert(mode).save(file, kind, **options)
        return file.getvalue()

    files = {
        "16-bit png": encode(".png", deep),
        "16-bit grey png": encode(".png", deep[..., 0]),
        "16-bit tiff": encode(".tiff", deep),
        "alpha png": encode(".png", cv2.cvtColor(colour, cv2.COLOR_BGR2BGRA)),
        "alpha webp": encode(".webp", cv2.cvtColor(colour, cv2.COLOR_BGR2BGRA)),
        "palette png": saved("P", "PNG"),
        "1-bit png": saved("1", "PNG"),
        "1-bit tiff": saved("1", "TIFF"),
        "1-bit fax tiff": saved("1", "TIFF", compression="group4"),
        "palette bmp": saved("P", "BMP"),
        "1-bit bmp": saved("1", "BMP"),
        "grey jpeg": encode(".jpg", grey),
        "progressive jpeg": saved("RGB", "JPEG", progressive=True),
        "rgb jpeg": saved("RGB", "JPEG", keep_rgb=True),
        "cmyk jpeg": saved("CMYK", "JPEG"),
        "cmyk tiff": saved("CMYK", "TIFF"),
    }
    for name in ("411", "420", "422", "440", "444"):
        options = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{name}")]
        files[f"{name} jpeg"] = cv2.imencode(".jpg", colour, options)[1].tobytes()
    return files


@pytest.mark.parametrize("kind", kinds_of_pixels())
def test_unusual_pixels_are_read_as_cv2_does(tmp_path, kind):
    got = scan(tmp_path, kinds_of_pixels()[kind])
    assert (got.readable, got.problem, got.width, got.height) == (True, "", 320, 240)
    seen = cv2.imread(str(tmp_path / "image.jpg"), cv2.IMREAD_GRAYSCALE)
    assert (got.phash ^ perceptual_hash(seen)).bit_count() <= 6
    assert got.brightness == pytest.approx(seen.mean(), abs=2)


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


def test_bccd_is_whole_and_its_known_near_duplicates_are_near(bccd):
    scans = {path.stem: scan_image(path) for path in sorted((bccd / "JPEGImages").glob("*.jpg"))}
    assert all(got.readable and (got.width, got.height) == (640, 480) for got in scans.values())
    near = scans["BloodImage_00037"].phash ^ scans["BloodImage_00038"].phash
    assert near.bit_count() <= 6
    far = scans["BloodImage_00037"].phash ^ scans["BloodImage_00100"].phash
    assert far.bit_count() >= 14
