"""Damage is found: photographs of every type, cut, holed and flipped; bytes from anywhere never crash the scan."""

from __future__ import annotations

import base64
import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from plumbline.image_damage import MAX_PIXELS, DamagedImageError, Header, read_header
from plumbline.image_scan import scan_bytes

# What libjpeg's own tools make and cv2 and Pillow do not: 48 x 32 pixels.
ARITHMETIC = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABsSFBcUERsXFhceHBsgKEIrKCUlKFE6PTBCYFVlZF9VXVtqeJmBanGQc1tdhbWGkJ6jq62rZ4C8ybqmx5mo"
    "q6T/2wBDARweHigjKE4rK06kbl1upKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKT/yQARCAAgADADASIAAhEB"
    "AxEB/8wACgAQEAUBEBEF/9oADAMBAAIRAxEAPwDA6Az2pw9F1WJvWbhR1FSivIWoomxGkK1iMfqcpsBRPWWL2/H5J23G5v3RE1USDYG1qBZr0Sr1US5W"
    "XU9yjBhRqXnW2FbdiIo0pCXxjJQY5EN9qEwTlYYf8t1HGP/Z"
)
ODD_CHROMA = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABsSFBcUERsXFhceHBsgKEIrKCUlKFE6PTBCYFVlZF9VXVtqeJmBanGQc1tdhbWGkJ6jq62rZ4C8ybqmx5mo"
    "q6T/2wBDARweHigjKE4rK06kbl1upKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKT/wAARCAAgADADASIAAiEB"
    "AxEB/8QAGQABAAMBAQAAAAAAAAAAAAAAAwIEBQAB/8QAHRAAAgICAwEAAAAAAAAAAAAAAAECAxExBBIhE//EABgBAQEBAQEAAAAAAAAAAAAAAAQDBQAC"
    "/8QAGREAAwEBAQAAAAAAAAAAAAAAAAECAxES/9oADAMBAAIRAxEAPwCSXpZoD6C1rAfyUmWIeiLteg79HkZ4RCyeUVUM8VLIXomZ/J2ymzQtjkrur0NR"
    "LoKobZp9CLWB2gbDS8lYlHXo+BueCPfIc9nQ2IUIjpKDxo3Qyjk75E6xTM1CNmzlCcn/2Q=="
)


def encode(kind: str, image: np.ndarray) -> bytes:
    """Return the BGR image as a file; kind is a suffix of cv2's with options, or a TIFF compression of Pillow's."""
    if kind.startswith("tiff"):
        file = io.BytesIO()
        compression = kind.partition(" ")[2] or None
        Image.fromarray(image[..., ::-1].copy()).save(file, "TIFF", compression=compression)
        return file.getvalue()
    suffix, *options = kind.split()
    flags = {
        "progressive": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
        "restarts": [cv2.IMWRITE_JPEG_RST_INTERVAL, 8],
        "lossless": [cv2.IMWRITE_WEBP_QUALITY, 101],
        "lossy": [cv2.IMWRITE_WEBP_QUALITY, 90],
    }
    done, data = cv2.imencode(f".{suffix}", image, [flag for option in options for flag in flags[option]])
    assert done
    return data.tobytes()


KINDS = [
    "jpg", "jpg progressive", "jpg restarts", "png", "webp lossy", "webp lossless", "bmp",
    "tiff", "tiff tiff_lzw", "tiff tiff_deflate", "tiff packbits", "tiff jpeg",
]  # fmt: skip


@pytest.fixture(scope="module", params=["drawn", "bccd"])
def photo(request) -> np.ndarray:
    """A photograph, BGR; and a drawn one with the grain of a camera for where there is none."""
    if request.param == "bccd":
        path = request.getfixturevalue("bccd") / "JPEGImages" / "BloodImage_00007.jpg"
        return cv2.imread(str(path))[:240, :320]
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 255, (9, 12, 3), dtype=np.uint8)
    grain = rng.normal(0, 6, (240, 320, 3))
    return np.clip(cv2.resize(coarse, (320, 240), interpolation=cv2.INTER_CUBIC) + grain, 0, 255).astype(np.uint8)


def places(data: bytes, count: int, seed: int = 0) -> list[int]:
    """Return places in the pixels' part of a file."""
    # All headers of these files are in the first 1000 bytes; a TIFF's may also be in the last 400.
    return np.random.default_rng(seed).integers(1000, len(data) - 1000, count).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_image_is_readable_whatever_follows_its_end(photo, kind):
    data = encode(kind, photo)
    for whole in (data, data + b"\0" * 100, data + b"appended by a camera \xff\xd8\xff"):
        got = scan_bytes(whole)
        assert (got.readable, got.damaged, got.problem, got.width, got.height) == (True, False, "", 320, 240)


@pytest.mark.parametrize("kind", KINDS)
def test_every_cut_is_found(photo, kind):
    data = encode(kind, photo)
    cuts = [*places(data, 25), len(data) - 1, len(data) - 2, len(data) - 13, len(data) // 100, 40]
    for cut in cuts:
        got = scan_bytes(data[:cut])
        assert (got.readable, got.damaged, got.width, got.phash) == (False, True, 0, 0), cut
        assert got.problem
        assert got.problem.isprintable()


@pytest.mark.parametrize("kind", ["jpg", "jpg progressive", "jpg restarts", "png"])
def test_a_cut_with_a_forged_end_is_found(photo, kind):
    data = encode(kind, photo)
    end = data[-12:] if kind == "png" else data[-2:]
    found = sum(scan_bytes(data[:cut] + end).damaged for cut in places(data, 40))
    # The last bits of a progressive JPEG are of the finest detail: one of 300 such cuts left a picture that is whole.
    assert found >= (39 if kind == "jpg progressive" else 40)


@pytest.mark.parametrize(
    ("kind", "size", "least"),
    # Measured: all, but for 299 (BCCD) and 248 (drawn, more bytes to a pixel) of 300 in LZW.
    [
        ("png", 64, 30),
        ("tiff tiff_deflate", 64, 30),
        ("tiff jpeg", 64, 29),
        ("jpg", 40, 30),
        ("jpg", 512, 30),
        ("jpg restarts", 40, 30),
        ("jpg progressive", 512, 15),
        ("tiff tiff_lzw", 64, 20),
        ("tiff tiff_lzw", 512, 29),
    ],
)
def test_lost_blocks_are_found(photo, kind, size, least):
    data = encode(kind, photo)
    holed = [data[:at] + bytes(size) + data[at + size :] for at in places(data, 30)]
    assert sum(scan_bytes(damaged).damaged for damaged in holed) >= least


def test_lost_blocks_of_lossless_webp_are_found(photo):
    data = encode("webp lossless", photo)
    assert all(scan_bytes(data[:at] + bytes(64) + data[at + 64 :]).damaged for at in places(data, 30))


@pytest.mark.parametrize(
    ("kind", "least"),
    # Of 244 flips in BCCD's photographs: all, all; 76 (JPEG), 113 (progressive), 107 (in TIFF), 36 (LZW).
    [("png", 1.0), ("tiff tiff_deflate", 1.0), ("jpg", 0.1), ("jpg progressive", 0.2), ("jpg restarts", 0.1)],
)
def test_flipped_bits_are_found_where_the_file_can_tell(photo, kind, least):
    data = encode(kind, photo)
    found = 0
    for index, at in enumerate(places(data, 60)):
        flipped = bytearray(data)
        flipped[at] ^= 1 << index % 8
        found += scan_bytes(bytes(flipped)).damaged
    assert found >= least * 60


@pytest.mark.parametrize("data", [ARITHMETIC, ODD_CHROMA], ids=["arithmetic", "odd chroma"])
def test_rare_kinds_of_jpeg_are_read_and_their_cuts_found(data):
    got = scan_bytes(data)
    assert (got.readable, got.width, got.height) == (True, 48, 32)
    assert scan_bytes(data[:-40]).damaged
    assert scan_bytes(data[:-2]).damaged


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"),  # 12 bits
        (b"\xff\xc0", b"\xff\xc3"),  # lossless
    ],
)
def test_a_jpeg_of_an_unread_kind_is_said_to_be_that(photo, old, new):
    got = scan_bytes(encode("jpg", photo).replace(old, new, 1))
    assert (got.readable, got.damaged) == (False, False)
    assert "kind that is not read" in got.problem


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no image",
        b"BM, a text",
        b"RIFF\x10\0\0\0WAVEfmt ",
        b"GIF89a" + bytes(40),
        b"II",
        b"\xff\xd8",
        b"P6 1 1 255 abc",
    ],
)
def test_what_is_no_image_is_not_called_damaged(data):
    got = scan_bytes(data)
    assert (got.readable, got.damaged) == (False, False)
    assert got.problem


def test_a_gif_is_no_image_here():
    file = io.BytesIO()
    Image.new("P", (30, 20)).save(file, "GIF")
    assert "is no JPEG, PNG" in scan_bytes(file.getvalue()).problem


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def huge_images() -> dict[str, bytes]:
    """Return files of a few hundred bytes that claim 60000 x 60000 pixels."""
    small, side = np.zeros((8, 8, 3), np.uint8), 60000
    jpeg, bmp, tiff = encode("jpg", small), encode("bmp", small), encode("tiff", small)
    frame = jpeg.index(b"\xff\xc0")
    signature, end = b"\x89PNG\r\n\x1a\n", png_chunk(b"IEND", b"")
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    canvas = b"VP8X" + struct.pack("<II", 10, 0) + (side - 1).to_bytes(3, "little") * 2
    webp = b"RIFF" + struct.pack("<I", 4 + len(canvas)) + b"WEBP" + canvas
    sides = [tiff.index(struct.pack("<HHI", tag, kind, 1)) for tag in (256, 257) for kind in (3, 4)
             if struct.pack("<HHI", tag, kind, 1) in tiff]  # fmt: skip
    for at in sides:
        tiff = tiff[: at + 2] + struct.pack("<HII", 4, 1, side) + tiff[at + 12 :]
    return {
        "jpeg": jpeg[: frame + 5] + struct.pack(">HH", side, side) + jpeg[frame + 9 :],
        "png": signature + header + png_chunk(b"IDAT", zlib.compress(bytes(1000))) + end,
        "webp": webp,
        "bmp": bmp[:18] + struct.pack("<ii", side, -side) + bmp[26:],
        "tiff": tiff,
    }


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "bmp", "tiff"])
def test_a_bomb_is_refused_before_it_is_decoded(kind):
    data = huge_images()[kind]
    with pytest.raises(
        ValueError, match=f"60000 x 60000 pixels are more than is decoded, expected at most {MAX_PIXELS}"
    ):
        read_header(data)
    got = scan_bytes(data)
    assert (got.readable, got.damaged) == (False, False)


def test_a_jpeg_of_endless_scans_is_refused(photo):
    data = encode("jpg progressive", photo)
    got = scan_bytes(data + b"\xff\xda\x00\x08" * 600)
    assert "scans" in got.problem


def test_a_tiff_strip_that_unpacks_to_more_than_the_image_is_refused():
    file = io.BytesIO()
    Image.new("L", (16, 16)).save(file, "TIFF", compression="tiff_deflate")
    strip = zlib.compress(bytes(1 << 26), 9)
    data = file.getvalue()
    at = data.index(struct.pack("<HH", 273, 4)), data.index(struct.pack("<HH", 279, 4))
    bomb = bytearray(data + strip)
    struct.pack_into("<I", bomb, at[0] + 8, len(data))
    struct.pack_into("<I", bomb, at[1] + 8, len(strip))
    with pytest.raises(DamagedImageError, match="unpacks to more than the image"):
        read_header(bytes(bomb))


def big_tiff(width: int, height: int) -> bytes:
    """Return a BigTIFF of zeros."""
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 400), (277, 1), (278, height),
            (279, width * height)]  # fmt: skip
    body = b"".join(struct.pack("<HHQQ", tag, 4, 1, value) for tag, value in tags)
    head = b"II+\0" + struct.pack("<HHQQ", 8, 0, 16, len(tags)) + body
    return head.ljust(400, b"\0") + bytes(width * height)


def test_a_big_tiff_is_read():
    data = big_tiff(40, 20)
    assert read_header(data) == Header("tiff", 40, 20)
    assert scan_bytes(data).readable
    assert scan_bytes(data[:-1]).damaged


SMALL = np.random.default_rng(3).integers(0, 255, (16, 24, 3), dtype=np.uint8)
SEEDS = [encode(kind, SMALL) for kind in KINDS] + [ARITHMETIC, ODD_CHROMA, big_tiff(40, 20), *huge_images().values()]


@settings(max_examples=300)
@given(st.sampled_from(SEEDS), st.data())
def test_a_changed_file_is_a_result_never_a_crash(seed, data):
    at = data.draw(st.integers(0, len(seed)))
    cut = data.draw(st.integers(0, 8))
    got = scan_bytes(seed[:at] + data.draw(st.binary(max_size=12)) + seed[at + cut :])
    assert got.readable == (not got.problem)
    assert not (got.readable and got.damaged)
    assert got.readable == (got.width > 0 and got.height > 0)


@settings(max_examples=200)
@given(
    st.sampled_from(
        [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x20\0\0\0WEBP", b"BM", b"II*\0", b"MM\0*", b"II+\0"]
    ),
    st.binary(max_size=300),
)
@example(b"II+\0", b"\0" * 11 + b"\x80")
@example(b"II*\0", b"\x08\0\0\0\xff\xff" + bytes(20))
@example(b"BM", bytes(12) + b"\x28\0\0\0" + b"\xff" * 40)
def test_any_bytes_are_a_result_never_a_crash(signature, rest):
    got = scan_bytes(signature + rest)
    assert got.readable == (not got.problem)
    assert got.problem.isprintable()


@pytest.mark.parametrize("level", [0, 127, 255])
@pytest.mark.parametrize("optimize", [0, 1])
def test_an_even_surface_is_no_lost_block(level, optimize):
    even = np.full((200, 300, 3), level, np.uint8)
    even[:, 150:] = 255 - level
    for quality in (5, 50, 95, 100):
        flags = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, optimize]
        for image in (even, even[..., 0]):
            data = cv2.imencode(".jpg", image, flags)[1].tobytes()
            assert scan_bytes(data).readable
            assert scan_bytes(data + bytes(600)).readable, "cameras fill up with zeros behind the end"
