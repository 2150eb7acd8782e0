"""Read the headers of an image file and check its container, before anything is decoded.

A decoder makes a picture of many a file that is cut short or damaged. What a container promises (lengths, offsets,
checksums) is therefore checked here; what only decoding shows is checked by `plumbline.image_scan`.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import simplejpeg

# A file of a few kB can claim any size; cv2.imread would need 400 MB for this one.
MAX_PIXELS = 1 << 27
# Each is a pass over the whole image, and no encoder writes more than a dozen.
_MAX_JPEG_SCANS = 500
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_LOST_BLOCK = bytes(64)
# 256 bits: a block of 8 x 8 pixels takes 191, if all its bits are 0 (see `_lost_in_jpeg`).
_LOST_IN_JPEG = bytes(32)
_BMP_HEADER_SIZES = (12, 40, 52, 56, 64, 108, 124)


class DamagedImageError(ValueError):
    """The bytes are an image of a known type, but cut short or damaged."""


@dataclass(frozen=True)
class Header:
    """What an image file says about itself.

    Attributes:
        kind: ``jpeg``, ``png``, ``webp``, ``bmp`` or ``tiff``.
        width: Pixels as stored, before EXIF orientation.
        height: Pixels as stored.
        orientation: 1..8, as EXIF numbers them; 1 is upright.
        num_channels: Of a JPEG; 4 are inks (CMYK).
    """

    kind: str
    width: int
    height: int
    orientation: int = 1
    num_channels: int = 3


def read_header(data: bytes) -> Header:
    """Tell the type of an image from its first bytes, read its size, and check its container.

    Raises:
        DamagedImageError: It is cut short or damaged.
        ValueError: It is no image of a type that is read here, or larger than `MAX_PIXELS`.
    """
    try:
        return _read_known(data)
    except (struct.error, OverflowError) as error:  # of struct, which reads every header
        raise DamagedImageError("it is cut short within its headers") from error


def _read_known(data: bytes) -> Header:
    if data.startswith(b"\xff\xd8\xff"):
        return _read_jpeg(data)
    if data.startswith(_PNG_SIGNATURE):
        return _read_png(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _read_webp(data)
    if data.startswith(b"BM") and int.from_bytes(data[14:18], "little") in _BMP_HEADER_SIZES:
        return _read_bmp(data)
    if data[:4] in _TIFF_SIGNATURES:
        return _read_tiff(data)
    raise ValueError("it is no JPEG, PNG, WebP, BMP or TIFF" if data else "the file is empty")


def _check_size(width: int, height: int) -> None:
    """Refuse sizes that no decoder must be asked for."""
    if width < 1 or height < 1:
        raise DamagedImageError(f"its header says {width} x {height} pixels")
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels are more than is decoded, expected at most {MAX_PIXELS}")


def _read_jpeg(data: bytes) -> Header:
    """Read size and orientation; whether the picture is whole only strict decoding can tell.

    Source: ITU-T T.81, annex B.
    """
    frame, orientation = None, 0
    first_ac_symbols: dict[int, int] = {}
    lost = False
    for marker, at, end in _jpeg_segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            frame = marker, *struct.unpack_from(">BHHB", data, at)
        elif marker == 0xE1 and not orientation and data[at : at + 6] == b"Exif\0\0":
            orientation = _orientation(data[at + 6 : end])
        elif marker == 0xC4:
            first_ac_symbols |= _first_ac_symbols(data[at:end])
        # Not where each channel has a scan of its own: in those of colour, zeros are an even surface.
        elif marker == 0xDA and frame and frame[0] in (0xC0, 0xC1) and data[at : at + 1] == bytes([frame[4]]):
            lost = _lost_in_jpeg(data, at, end, first_ac_symbols)
    if frame is None:
        raise DamagedImageError("damaged JPEG: it has no frame header")
    process, precision, height, width, num_channels = frame
    if process not in (0xC0, 0xC1, 0xC2, 0xC9, 0xCA) or precision != 8:
        raise ValueError(f"a JPEG of a kind that is not read, expected 8 bits of baseline or progressive,"
                         f" got {precision} bits of process {process:#x}")  # fmt: skip
    if process in (0xC2, 0xCA) and data.count(b"\xff\xda") > _MAX_JPEG_SCANS:
        raise ValueError(f"a progressive JPEG of more than {_MAX_JPEG_SCANS} scans")
    _check_size(width, height)
    if lost:
        raise DamagedImageError(f"damaged JPEG: {len(_LOST_IN_JPEG)} bytes of zero in its picture")
    return Header("jpeg", width, height, orientation or 1, num_channels)


def _first_ac_symbols(tables: bytes) -> dict[int, int]:
    """Return, for each AC table of one segment, the symbol whose code is all zeros.

    Source: ITU-T T.81, sections B.2.4.2 and C.2.
    """
    found, at = {}, 0
    while at + 17 < len(tables):
        if tables[at] >> 4 == 1:
            found[tables[at] & 15] = tables[at + 17]
        at += 17 + sum(tables[at + 1 : at + 17])
    return found


def _lost_in_jpeg(data: bytes, at: int, end: int, first_ac_symbols: dict[int, int]) -> bool:
    """Say whether a baseline JPEG's picture holds a run of zeros that no picture gives.

    Decoders take zeros for a picture, and often find back into step. With the usual tables such bits are blocks of
    which every coefficient is -1. Only where the all-zero code ends a block are they an even surface.

    Args:
        data: The file.
        at: Where the content of its first scan's header begins.
        end: Where the picture begins.
        first_ac_symbols: Of each AC table, the symbol whose code is all zeros.
    """
    symbol = first_ac_symbols.get(data[at + 2] & 15) if at + 2 < len(data) else None
    if not symbol or symbol & 15 == 0:  # none, or one without bits of its own
        return False
    lost = data.find(_LOST_IN_JPEG, end)
    # What follows the picture's end is not the picture.
    return lost >= 0 and data.find(b"\xff\xd9", end, lost) < 0


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of each header segment's content."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # these have no content
            at += 2
        else:
            end = at + 2 + (data[at + 2] << 8 | data[at + 3])
            yield marker, at + 4, end
            if marker == 0xDA:  # the picture itself: no headers after it
                return
            at = end


def _read_png(data: bytes) -> Header:
    """Walk the chunks and check each CRC; that the pixels are all there libpng checks itself.

    Source: W3C Portable Network Graphics, section 5.3.
    """
    at, orientation = len(_PNG_SIGNATURE), 1
    _, kind, width, height = struct.unpack_from(">I4sII", data, at)
    if kind != b"IHDR":
        raise DamagedImageError("damaged PNG: it does not begin with its header")
    while at + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + size
        if end > len(data):
            break
        if zlib.crc32(memoryview(data)[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise DamagedImageError(f"damaged PNG: chunk {kind!r} at byte {at} has a wrong checksum")
        if kind == b"eXIf":
            orientation = _orientation(data[at + 8 : end - 4])
        elif kind == b"IEND":
            _check_size(width, height)
            return Header("png", width, height, orientation)
        at = end
    raise DamagedImageError("damaged PNG: it ends before its end chunk")


def _read_webp(data: bytes) -> Header:
    """Check the RIFF sizes. The format has no checksums.

    Source: RFC 9649, sections 2.3 to 2.7.
    """
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise DamagedImageError(f"damaged WebP: it is cut short, expected {end} bytes, got {len(data)}")
    at, size_wh, orientation = 12, None, 1
    while at + 8 <= end:
        kind, size = struct.unpack_from("<4sI", data, at)
        if at + 8 + size > end:
            raise DamagedImageError(f"damaged WebP: chunk {kind!r} at byte {at} leaves the file")
        if size_wh is None:
            size_wh = _webp_size(data, kind, at + 8)
            _check_size(*size_wh)
        # Lossless packing of every kind of picture left at most 2 zero bytes in a row: this block was lost.
        if kind == b"VP8L" and data.find(_LOST_BLOCK, at, at + 8 + size) >= 0:
            raise DamagedImageError(f"damaged WebP: {len(_LOST_BLOCK)} bytes of zero in its pixels")
        if kind == b"EXIF":
            orientation = _orientation(data[at + 8 : at + 8 + size].removeprefix(b"Exif\0\0"))
        at += 8 + size + size % 2
    if size_wh is None:
        raise DamagedImageError("damaged WebP: it holds nothing")
    return Header("webp", *size_wh, orientation)


def _webp_size(data: bytes, kind: bytes, at: int) -> tuple[int, int]:
    """Return width and height from the content of a WebP's first chunk."""
    if kind == b"VP8X":
        low_w, high_w, low_h, high_h = struct.unpack_from("<HBHB", data, at + 4)
        return 1 + (high_w << 16 | low_w), 1 + (high_h << 16 | low_h)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, at + 1)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, at + 6)
        return width & 0x3FFF, height & 0x3FFF
    raise DamagedImageError(f"damaged WebP: it begins with {kind!r}")


def _read_bmp(data: bytes) -> Header:
    """Check that the pixels are all there. Of damaged pixels the format has no checksum.

    Source: Microsoft, BITMAPFILEHEADER, BITMAPINFOHEADER.
    """
    file_size, offset, header_size = struct.unpack_from("<I4xII", data, 2)
    if header_size == 12:
        width, height, bits = struct.unpack_from("<HH2xH", data, 18)
        compression, size = 0, 0
    else:
        width, height, bits, compression, size = struct.unpack_from("<ii2xHII", data, 18)
    height = abs(height)  # a negative one: the first row is the upper one
    _check_size(width, height)
    if compression in (0, 3, 6):  # plain rows, each of whole 4-byte words
        size = (width * bits + 31) // 32 * 4 * height
    elif not size:
        size = file_size - offset
    if offset + size > len(data):
        raise DamagedImageError(f"damaged BMP: it is cut short, expected {offset + size} bytes, got {len(data)}")
    return Header("bmp", width, height)


# Byte order, and whether it is a BigTIFF.
_TIFF_SIGNATURES = {
    b"II*\0": ("<", False),
    b"MM\0*": (">", False),
    b"II+\0": ("<", True),
    b"MM\0+": (">", True),
}
_TIFF_NUMBERS = {1: "B", 3: "H", 4: "I", 7: "B", 16: "Q"}
_WIDTH, _HEIGHT, _COMPRESSION, _ORIENTATION = 256, 257, 259, 274
_TILE_WIDTH, _TILE_HEIGHT, _JPEG_TABLES = 322, 323, 347
# Offsets and lengths of strips, or of tiles.
_PIECES = ((273, 279), (324, 325))
_TIFF_TAGS = {
    _WIDTH, _HEIGHT, _COMPRESSION, _ORIENTATION, _TILE_WIDTH, _TILE_HEIGHT, _JPEG_TABLES, *_PIECES[0], *_PIECES[1],
}  # fmt: skip


def _read_tiff(data: bytes) -> Header:
    """Check that every strip or tile of the first page lies in the file and can be unpacked.

    Source: Adobe, TIFF Revision 6.0, section 2; the BigTIFF file format, libtiff.gitlab.io.
    """
    tags = _read_ifd(data, _TIFF_TAGS)
    if _WIDTH not in tags or _HEIGHT not in tags:
        raise DamagedImageError("damaged TIFF: its first page has no size")
    width, height = tags[_WIDTH][0], tags[_HEIGHT][0]
    _check_size(width, height)
    _check_size(tags.get(_TILE_WIDTH, (1,))[0], tags.get(_TILE_HEIGHT, (1,))[0])
    # Sparse tiles, and alike ones in some files, share a place.
    pieces = {piece for tag, length in _PIECES for piece in zip(tags.get(tag, ()), tags.get(length, ()), strict=False)}
    for at, length in pieces:
        if at + length > len(data):
            raise DamagedImageError(f"damaged TIFF: it is cut short, expected {at + length} bytes, got {len(data)}")
    if sum(length for _, length in pieces) > len(data):
        raise DamagedImageError("damaged TIFF: its strips overlap")
    compression = tags.get(_COMPRESSION, (1,))[0]
    if compression in (8, 32946):
        _check_deflated([data[at : at + length] for at, length in sorted(pieces)], width * height)
    elif compression == 7:
        _check_jpeg_pieces([data[at : at + length] for at, length in sorted(pieces)], bytes(tags.get(_JPEG_TABLES, ())))
    elif compression != 1:
        _check_with_pillow(data)
    orientation = tags.get(_ORIENTATION, (1,))[0]
    return Header("tiff", width, height, orientation if 1 <= orientation <= 8 else 1)


def _check_deflated(pieces: list[bytes], num_pixels: int) -> None:
    # The largest sample has 8 bytes and a pixel has 4 of them; the last tiles may reach beyond the image.
    room = 64 * num_pixels + (1 << 24)
    for piece in pieces:
        stream = zlib.decompressobj()
        try:
            while piece and not stream.eof and room > 0:
                room -= len(stream.decompress(piece, 1 << 20))
                piece = stream.unconsumed_tail  # noqa: PLW2901
        except zlib.error as error:
            raise DamagedImageError(f"damaged TIFF: a strip cannot be unpacked ({error})") from error
        if not stream.eof:
            raise DamagedImageError("damaged TIFF: a strip is cut short, or unpacks to more than the image")


def _check_jpeg_pieces(pieces: list[bytes], tables: bytes) -> None:
    """Decode each strip strictly; libtiff goes on over damaged ones.

    Source: Adobe, TIFF Technical Note 2: the strips' common tables are a JPEG without a picture.
    """
    for piece in pieces:
        whole = tables[:-2] + piece[2:] if tables else piece
        try:
            simplejpeg.decode_jpeg(whole, colorspace="GRAY", min_height=1, strict=True)
        except (ValueError, KeyError) as error:
            if "subsampling" not in str(error):
                raise DamagedImageError(f"damaged TIFF: a strip's JPEG is damaged ({error})") from error


def _check_with_pillow(data: bytes) -> None:
    """Decode a TIFF of another compression, such as LZW: Pillow heeds libtiff's errors, cv2 does not."""
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(data), formats=("TIFF",))
    except Exception:
        return
    try:
        image.load()
    except Exception as error:  # it raises whatever its parsers meet
        raise DamagedImageError(f"damaged TIFF: {error}") from error


def _read_ifd(data: bytes, wanted: set[int]) -> dict[int, tuple[int, ...]]:
    """Return the whole numbers that the first directory of a TIFF structure holds, by tag; none are empty.

    Raises:
        struct.error, OverflowError: The directory or a value leaves the data.
    """
    order, big = _TIFF_SIGNATURES[data[:4]]
    layout, inline = (order + "HHQ", 8) if big else (order + "HHI", 4)
    (start,) = struct.unpack_from(order + "Q", data, 8) if big else struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, start)
    first, step = (start + 8, 20) if big else (start + 2, 12)
    tags = {}
    for entry in range(first, first + step * min(count, 65535), step):
        tag, kind, number = struct.unpack_from(layout, data, entry)
        if tag not in wanted or kind not in _TIFF_NUMBERS or not number:
            continue
        at, numbers = entry + step - inline, f"{order}{number}{_TIFF_NUMBERS[kind]}"
        if number > len(data):
            raise struct.error("more values than bytes")
        if struct.calcsize(numbers) > inline:
            (at,) = struct.unpack_from(order + ("Q" if big else "I"), data, at)
        tags[tag] = struct.unpack_from(numbers, data, at)
    return tags


def _orientation(exif: bytes) -> int:
    """Return the orientation in an EXIF block, which is a TIFF structure; 1 where it makes no sense.

    Source: CIPA DC-008 (Exif 2.32), section 4.6.4, tag 0x0112.
    """
    try:
        value = _read_ifd(exif, {_ORIENTATION}).get(_ORIENTATION, (1,))[0]
    except (struct.error, OverflowError, KeyError):
        return 1
    return value if 1 <= value <= 8 else 1
