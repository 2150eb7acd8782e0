"""The frames of a video, or of all videos in a folder together with the other files there.

One frame is taken every `every_s` seconds of the video's own time stamps, and left out where it looks like the last one
that was kept. It is the file ``<video without its suffix>/frame_000120.png``, where 120 is its index in the video, from
0: a label tool's file for the frame finds it, and no name depends on what else is there. It is lossless, and the same
bytes each time. All frames of a video are one group.

The settings are part of the address, as workers open it again: ``clips?every_s=1.0&max_hash_bits=6``; without them,
`EVERY_S` and `MAX_HASH_BITS` hold. Each video is decoded once to choose its frames, when `files` is first called;
reading them in order goes through it once more, and needs no `files`.
"""

from __future__ import annotations

import errno
import math
import re
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import numpy.typing as npt

from plumbline.errors import DatasetError
from plumbline.faults import DAMAGED_IMAGE, UNREADABLE_IMAGE, UNSAFE_NAME
from plumbline.formats.reading import ReadFinding
from plumbline.image_scan import perceptual_hash
from plumbline.sources.folder import FolderSource, walk
from plumbline.sources.forward import ForwardReaders
from plumbline.sources.names import is_plain, unsafe_name

LAYOUT = "a video (.mp4 .avi .mov .mkv .webm .m4v) or a folder that holds some"

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")
EVERY_S = 1.0
MAX_HASH_BITS = 6

_SETTINGS = re.compile(r"(.*)\?every_s=([0-9.e+-]+)&max_hash_bits=(-?[0-9]+)", re.DOTALL)
_FRAME = re.compile(r"(.+)/frame_([0-9]{6,9})\.png", re.DOTALL)
# Fast, and smaller than level 2 of most.
_PNG = [
    cv2.IMWRITE_PNG_COMPRESSION, 1,
    cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_SUB,
    cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_DEFAULT,
]  # fmt: skip
# One thread and no hardware: what a decoder makes of a damaged frame must not depend on timing or on the machine.
_CAPTURE = [cv2.CAP_PROP_N_THREADS, 1, cv2.CAP_PROP_HW_ACCELERATION, cv2.VIDEO_ACCELERATION_NONE]
# Containers round time stamps to milliseconds.
_TICK_S = 0.001
# Containers overstate the number of frames by a few.
_MISSING_S = 1.0
_USUAL_FPS = 25.0
_TELL_EVERY_S = 10.0

Image = npt.NDArray[np.uint8]


def takes(address: str) -> bool:
    """Say whether there is a video, or a folder with at least one."""
    path, _, _ = split_address(address)
    if Path(path).is_dir():
        return bool(path) and any(_is_video_name(name) for name in walk(Path(path)))
    return _is_video_name(path) and Path(path).is_file()


def open_source(address: str) -> VideoSource:
    """Open a video or a folder; see `plumbline.sources.Kind`."""
    return VideoSource(address)


def video_address(address: str, every_s: float, max_hash_bits: int) -> str:
    """Return the address with these settings in it where it is one of videos, else as it is.

    Args:
        address: What `plumbline.sources.open_source` takes.
        every_s: Seconds from one frame to the next, more than 0.
        max_hash_bits: A frame is left out where its perceptual hash differs from that of the last one kept by no more
            bits; -1 keeps all.
    """
    path, _, _ = split_address(address)
    return f"{path}?every_s={float(every_s)!r}&max_hash_bits={max_hash_bits:d}" if takes(address) else address


def split_address(address: str) -> tuple[str, float, int]:
    """Return the path, every_s and max_hash_bits of an address.

    >>> split_address("clips?every_s=0.5&max_hash_bits=-1"), split_address("what?.mp4")
    (('clips', 0.5, -1), ('what?.mp4', 1.0, 6))

    Raises:
        DatasetError: A setting makes no sense.
    """
    match = _SETTINGS.fullmatch(address)
    if not match:
        return address, EVERY_S, MAX_HASH_BITS
    try:
        every_s, max_hash_bits = float(match[2]), int(match[3])
    except ValueError:
        every_s = max_hash_bits = 0
    if not (0 < every_s < math.inf and -1 <= max_hash_bits <= 64):
        raise DatasetError(
            f"{address}: expected seconds above 0 and -1 to 64 bits, got {match[2]} and {match[3]};"
            " correct dataset.video in params.yaml"
        )
    return match[1], every_s, max_hash_bits


@dataclass(frozen=True)
class _Video:
    """One video: its name in the source, and where it is."""

    name: str
    path: Path

    @property
    def stem(self) -> str:
        """Return the name of the folder that its frames seem to be in."""
        return self.name.removesuffix(PurePosixPath(self.name).suffix)


class VideoSource:
    """See `plumbline.sources.Source`; threads may read from it, best in the order of `order`."""

    def __init__(self, address: str) -> None:
        self.address = address
        path_text, self._every_s, self._max_hash_bits = split_address(address)
        path = Path(path_text)
        self._folder = FolderSource(path_text) if path.is_dir() else None
        self._findings: list[ReadFinding] = [] if self._folder is None else self._folder.findings()
        files = {path.name: -1} if self._folder is None else self._folder.files()
        root = path.parent if self._folder is None else path
        self._others = {name: size for name, size in files.items() if not _is_video_name(name)}
        self._videos = self._distinct([_Video(name, root / name) for name in files if _is_video_name(name)])
        self._frames: dict[str, int] | None = None
        self._index_lock = threading.Lock()
        self._read_lock = threading.Lock()
        self._decoders = ForwardReaders(lambda video: _Decoder(Path(video)))

    def files(self) -> Mapping[str, int]:  # noqa: D102 - as in the protocol, like all below
        return self._index()

    def findings(self) -> list[ReadFinding]:  # noqa: D102
        self._index()
        return list(self._findings)

    def read(self, name: str) -> bytes:  # noqa: D102
        if self._folder is not None and name in self._others:
            return self._folder.read(name)
        video, index = self._frame(name)
        key = str(video.path)
        with self._read_lock:
            decoder = self._decoders.take(key, index)
            image = decoder.frame(index)
            self._decoders.give(key, decoder)
        return cv2.imencode(".png", image, _PNG)[1].tobytes()

    def stamp(self, name: str) -> str:  # noqa: D102
        if self._folder is not None and name in self._others:
            return self._folder.stamp(name)
        video, index = self._frame(name)
        status = video.path.stat()
        return f"{status.st_size}:{status.st_mtime_ns}:{index}"

    def where(self, name: str) -> str:  # noqa: D102
        frame = None if name in self._others else self._parse(name)
        if frame is not None:
            return (frame[0].path / PurePosixPath(name).name).as_posix()
        return name if self._folder is None else self._folder.where(name)

    def group(self, name: str) -> str:  # noqa: D102
        # Also of a frame that stands there as a file, as a label tool leaves it.
        frame = self._parse(name)
        return "" if frame is None else frame[0].name

    def order(self, names: Iterable[str]) -> list[str]:  # noqa: D102
        def key(name: str) -> tuple[str, int, str]:
            frame = self._parse(name)
            return ("", 0, name) if frame is None else (frame[0].name, frame[1], name)

        return sorted(names, key=key)

    def _parse(self, name: str) -> tuple[_Video, int] | None:
        """Return the video and the index of a frame's name; None for another name."""
        match = _FRAME.fullmatch(name)
        if not match or match[1] not in self._videos or f"{int(match[2]):06d}" != match[2]:
            return None
        return self._videos[match[1]], int(match[2])

    def _frame(self, name: str) -> tuple[_Video, int]:
        frame = self._parse(name)
        # A worker that reads frames by name need not choose them again.
        if frame is None or (self._frames is not None and name not in self._frames):
            raise FileNotFoundError(errno.ENOENT, "no such file or frame in the source", name)
        return frame

    def _distinct(self, videos: list[_Video]) -> dict[str, _Video]:
        """Return the videos by stem, without those whose frames would have the names of something else."""
        stems = Counter(video.stem for video in videos)
        distinct = {}
        for video in videos:
            if not is_plain(video.name):
                self._findings.append(unsafe_name(video.path.parent.as_posix(), video.name))
            elif stems[video.stem] > 1 or video.stem in self._others:
                message = f"another file or video has the name {video.stem!r} that its frames go by; rename one of them"
                self._findings.append(ReadFinding(video.path.as_posix(), 0, UNSAFE_NAME, message))
            else:
                distinct[video.stem] = video
        return distinct

    def _index(self) -> dict[str, int]:
        with self._index_lock:
            if self._frames is None:
                frames = dict.fromkeys(self._choose_frames(), -1)
                # A file of a frame's own name is that frame, as it was labelled.
                self._frames = dict(sorted((frames | self._others).items()))
            return self._frames

    def _choose_frames(self) -> Iterator[str]:
        told = time.monotonic()
        for done, video in enumerate(self._videos.values()):
            if time.monotonic() - told > _TELL_EVERY_S:
                told = time.monotonic()
                print(f"video: frames chosen of {done} of {len(self._videos)} videos", flush=True)  # noqa: T201
            try:
                decoder = _Decoder(video.path)
                for index in _choose(decoder, self._every_s, self._max_hash_bits):
                    yield f"{video.stem}/frame_{index:06d}.png"
            except OSError as error:
                self._findings.append(ReadFinding(video.path.as_posix(), 0, UNREADABLE_IMAGE, str(error)))
                continue
            if missing := decoder.missing():
                self._findings.append(ReadFinding(video.path.as_posix(), 0, DAMAGED_IMAGE, missing))
            decoder.close()


class _Decoder:
    """A video, decoded forward; see `plumbline.sources.forward.ForwardReader`.

    It never seeks: what a seek lands on depends on the container, and may not be the frame that was asked for.

    Attributes:
        position: Index of the frame that comes next.
        seconds: Time of the last frame, from the first one.
    """

    def __init__(self, path: Path) -> None:
        """Open a video; OSError when it is none."""
        self.position = 0
        self.seconds = 0.0
        self._start_s = 0.0
        if not _begins_as_video(path):
            raise OSError("is no video, expected an MP4, QuickTime, AVI, Matroska or WebM file; convert or remove it")
        # An absolute path: FFmpeg would take "concat:a" for more than a name.
        self._capture = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG, _CAPTURE)
        if not self._capture.isOpened():
            raise OSError("cannot be opened as a video (damaged or cut short), expected a whole one; replace it")
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self._fps = fps if 0 < fps < math.inf else _USUAL_FPS

    def grab(self) -> bool:
        """Go to the next frame; False at the end."""
        if not self._capture.grab():
            return False
        stamp_s = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if self.position == 0:
            self._start_s = stamp_s
        else:
            seconds = stamp_s - self._start_s
            # Some containers have no time stamps, or wrong ones.
            self.seconds = seconds if self.seconds < seconds < math.inf else self.seconds + 1 / self._fps
        self.position += 1
        return True

    def image(self) -> Image:
        """Return the frame that `grab` went to, BGR, shape (H, W, 3), turned as the video says; OSError if none."""
        done, image = self._capture.retrieve()
        if not done or image is None or image.size == 0:
            raise OSError(f"frame {self.position - 1} cannot be decoded; replace the video")
        return np.asarray(image, np.uint8)

    def frame(self, index: int) -> Image:
        """Go forward to a frame and return it; OSError where the video ends before."""
        while self.position <= index:
            if not self.grab():
                raise OSError(f"the video ends at frame {self.position}, before frame {index}; replace it")
        return self.image()

    def missing(self) -> str:
        """Return what is wrong when decoding ended long before the video should, or "" ."""
        expected = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        lost_s = expected / self._fps - self.seconds
        # Either alone is usual: the count is often a guess from the length, and the last frame may stand for long.
        if self.position < expected and lost_s > _MISSING_S + 1 / self._fps:
            return (
                f"ends after {self.position} frames, expected {expected:.0f} (damaged or cut short); replace it, or"
                " use the frames until there"
            )
        return ""

    def close(self) -> None:
        """Let go of the file."""
        self._capture.release()


def _choose(decoder: _Decoder, every_s: float, max_hash_bits: int) -> Iterator[int]:
    """Yield the indices of the frames that are due and do not look like the last one that was yielded."""
    due_s = 0.0
    kept: int | None = None
    while decoder.grab():
        if decoder.seconds + _TICK_S < due_s:
            continue
        due_s = (math.floor((decoder.seconds + _TICK_S) / every_s) + 1) * every_s
        phash = perceptual_hash(np.asarray(cv2.cvtColor(decoder.image(), cv2.COLOR_BGR2GRAY), np.uint8))
        if kept is None or (phash ^ kept).bit_count() > max_hash_bits:
            kept = phash
            yield decoder.position - 1
    if decoder.position == 0:
        raise OSError("not one frame can be decoded, expected a whole video; replace it")


def _is_video_name(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES


def _begins_as_video(path: Path) -> bool:
    """Say whether a file begins as one of the containers: FFmpeg would also open a playlist, and what that names."""
    with path.open("rb") as file:
        head = file.read(12)
    is_avi = head.startswith(b"RIFF") and head.endswith(b"AVI ")
    is_mp4 = head[4:8] in {b"ftyp", b"styp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"}
    return is_avi or is_mp4 or head.startswith(b"\x1aE\xdf\xa3")
