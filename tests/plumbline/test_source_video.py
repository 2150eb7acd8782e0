"""Frames of videos: which are taken, that they come out the same each time, and what is wrong with a video."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from plumbline.errors import DatasetError
from plumbline.faults import DAMAGED_IMAGE, UNREADABLE_IMAGE, UNSAFE_NAME
from plumbline.image_scan import perceptual_hash
from plumbline.sources import open_source
from plumbline.sources.forward import ForwardReaders
from plumbline.sources.video import EVERY_S, MAX_HASH_BITS, VideoSource, _Decoder, takes, video_address

FPS = 10.0
SIZE_WH = (96, 64)
FORMATS = {".mp4": "mp4v", ".avi": "MJPG", ".mkv": "mp4v", ".mov": "mp4v", ".m4v": "mp4v"}


def scene(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, SIZE_WH, interpolation=cv2.INTER_CUBIC)


def write_video(path: Path, seeds: list[int], fps: float = FPS) -> Path:
    """Write one frame per seed; equal seeds are equal scenes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*FORMATS[path.suffix]), fps, SIZE_WH)
    assert writer.isOpened()
    for seed in seeds:
        writer.write(scene(seed))
    writer.release()
    return path


def decode(path: Path) -> Iterator[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    while (frame := capture.read())[0]:
        yield frame[1]


def frames(source: VideoSource) -> list[int]:
    return [int(name[-10:-4]) for name in source.files()]


@pytest.fixture(scope="module")
def moving(tmp_path_factory):
    """Six seconds in which every frame is another scene."""
    return write_video(tmp_path_factory.mktemp("moving") / "clip.mp4", list(range(60)))


@pytest.mark.parametrize("suffix", FORMATS)
def test_one_frame_a_second_is_taken_as_it_is_decoded(tmp_path, suffix):
    path = write_video(tmp_path / f"clip{suffix}", list(range(35)))
    source = open_source(str(path))
    assert list(source.files()) == [f"clip/frame_{index:06d}.png" for index in (0, 10, 20, 30)]
    assert not source.findings()
    decoded = list(decode(path))
    for name, index in zip(source.files(), (0, 10, 20, 30), strict=True):
        image = cv2.imdecode(np.frombuffer(source.read(name), np.uint8), cv2.IMREAD_COLOR)
        assert np.array_equal(image, decoded[index])
        assert source.group(name) == path.name
        assert source.where(name) == f"{path.as_posix()}/frame_{index:06d}.png"


@pytest.mark.parametrize(
    ("every_s", "expected"),
    [(2.0, [0, 20, 40]), (0.25, [0, 3, 5, 8, 10, 13]), (0.1, list(range(60))), (0.001, list(range(60))), (100.0, [0])],
)
def test_frames_are_taken_by_their_time(moving, every_s, expected):
    found = frames(open_source(video_address(str(moving), every_s, 0)))
    assert found[: len(expected)] == expected
    assert len(found) == len(expected) or every_s == 0.25


def test_a_still_scene_is_one_frame_and_a_new_scene_another(tmp_path):
    path = write_video(tmp_path / "still.avi", [1] * 50 + [2] * 25 + [1] * 25)
    assert frames(open_source(str(path))) == [0, 50, 80]
    assert frames(open_source(video_address(str(path), 1.0, -1))) == list(range(0, 100, 10))
    assert frames(open_source(video_address(str(path), 1.0, 64))) == [0]


def test_a_frame_is_compared_with_the_last_that_was_kept(tmp_path):
    """A slow change is noticed when it has become large, not lost because each step is small."""
    path = tmp_path / "slow.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), FPS, SIZE_WH)
    for step in range(200):
        writer.write(cv2.addWeighted(scene(1), 1 - step / 199, scene(2), step / 199, 0))
    writer.release()
    source = open_source(str(path))
    hashes = [perceptual_hash(cv2.imdecode(np.frombuffer(source.read(n), np.uint8), 0)) for n in source.files()]
    assert 1 < len(hashes) < 20
    assert all((a ^ b).bit_count() > MAX_HASH_BITS for a, b in pairwise(hashes))


def test_reading_in_any_order_gives_the_same_bytes(moving):
    address = video_address(str(moving), 0.2, 0)
    source = open_source(address)
    names = list(source.files())
    assert len(names) == 30
    once = {name: source.read(name) for name in source.order(names)}
    assert {name: source.read(name) for name in reversed(names)} == once
    fresh = open_source(address)
    shuffled = np.random.default_rng(0).permutation(names).tolist()
    with ThreadPoolExecutor(6) as pool:
        assert dict(zip(shuffled, pool.map(fresh.read, shuffled), strict=True)) == once


def count_grabs(monkeypatch) -> list[int]:
    grabs: list[int] = []
    plain = _Decoder.grab

    def counting(self):
        grabs.append(self.position)
        return plain(self)

    monkeypatch.setattr(_Decoder, "grab", counting)
    return grabs


def test_each_frame_is_decoded_once_for_the_index_and_once_for_reading_in_order(moving, monkeypatch):
    grabs = count_grabs(monkeypatch)
    source = open_source(video_address(str(moving), 0.2, 0))
    assert not grabs
    names = source.order(source.files())
    source.files()
    source.findings()
    assert len(grabs) == 61  # the end is one more
    grabs.clear()
    for name in names:
        source.read(name)
    assert len(grabs) == 59
    grabs.clear()
    again = open_source(source.address)
    for k in range(len(names)):  # as threads do: nearly in order
        again.read(names[k ^ 1])
    assert len(grabs) <= 2 * 60


def test_the_reader_nearest_before_is_taken_and_the_one_longest_unused_goes(moving):
    readers = ForwardReaders(lambda video: _Decoder(Path(video)), limit=2)
    key = str(moving)
    first, second, third = (readers.take(key, 0) for _ in range(3))
    for reader, index in ((first, 20), (second, 5)):
        reader.frame(index)
        readers.give(key, reader)
    assert readers.take(key, 10) is second
    readers.give(key, second)
    assert readers.take(key, 30) is first
    readers.give(key, first)
    third.frame(40)
    readers.give(key, third)  # second was used before first
    assert readers.take(key, 10).position == 0


def test_a_worker_reads_a_frame_by_its_name_without_choosing_them_again(moving, monkeypatch):
    grabs = count_grabs(monkeypatch)
    source = open_source(str(moving))
    source.read("clip/frame_000010.png")
    source.stamp("clip/frame_000010.png")
    assert grabs == list(range(11))


def test_names_that_are_no_frames_are_not_read(moving):
    source = open_source(str(moving))
    for name in ("clip/frame_000999.png", "clip/frame_0000000.png", "clip/frame_10.png", "other/frame_000000.png", ""):
        with pytest.raises(OSError, match=r"no such|ends at frame"):
            source.read(name)


def test_a_folder_with_videos_is_a_folder_with_frames(tmp_path, moving):
    shutil.copy(moving, tmp_path / "clip.mp4")
    write_video(tmp_path / "b" / "clip.AVI".lower(), list(range(100, 125)))
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "frame_000010.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (tmp_path / "photo.jpg").write_bytes(b"photo")
    source = open_source(str(tmp_path))
    assert isinstance(source, VideoSource)
    assert list(source.files()) == [
        *(f"b/clip/frame_{index:06d}.png" for index in (0, 10, 20)),
        "clip/frame_000000.png",
        "clip/frame_000010.png",
        "clip/frame_000010.txt",
        *(f"clip/frame_{index:06d}.png" for index in (20, 30, 40, 50)),
        "photo.jpg",
    ]
    assert source.read("photo.jpg") == b"photo"
    assert {source.group(name) for name in source.files()} == {"b/clip.avi", "clip.mp4", ""}
    assert source.group("clip/frame_000010.txt") == ""
    assert source.read("b/clip/frame_000000.png") != source.read("clip/frame_000000.png")
    assert source.where("clip/frame_000010.png") == f"{tmp_path.as_posix()}/clip.mp4/frame_000010.png"
    assert source.where("clip/frame_000010.txt") == f"{tmp_path.as_posix()}/clip/frame_000010.txt"


def test_a_frame_that_stands_there_as_a_file_is_that_file(tmp_path, moving):
    shutil.copy(moving, tmp_path / "clip.mp4")
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "frame_000010.png").write_bytes(b"labelled")
    source = open_source(str(tmp_path))
    assert source.files()["clip/frame_000010.png"] == 8
    assert source.read("clip/frame_000010.png") == b"labelled"
    assert source.group("clip/frame_000010.png") == "clip.mp4"


def test_two_videos_whose_frames_would_have_one_name_are_left_out(tmp_path, moving):
    for name in ("clip.mp4", "clip.m4v", "photo.jpg.mp4", "good.mp4"):
        shutil.copy(moving, tmp_path / name)
    (tmp_path / "photo.jpg").write_bytes(b"photo")
    source = open_source(str(tmp_path))
    assert {source.group(name) for name in source.files()} == {"", "good.mp4"}
    assert [(f.code, Path(f.source_file).name) for f in source.findings()] == [
        (UNSAFE_NAME, name) for name in ("clip.m4v", "clip.mp4", "photo.jpg.mp4")
    ]


def test_bad_videos_are_findings_and_the_others_go_on(tmp_path, moving):
    data = moving.read_bytes()
    (tmp_path / "a_empty.mp4").write_bytes(b"")
    (tmp_path / "b_text.mp4").write_bytes(b"no video")
    (tmp_path / "c_cut.mp4").write_bytes(data[: len(data) // 2])
    (tmp_path / "d_playlist.avi").write_bytes(f"#EXTM3U\n#EXTINF:1,\n{moving}\n".encode())
    (tmp_path / "e_concat.mov").write_bytes(b"ffconcat version 1.0\nfile good.mp4\n")
    (tmp_path / "f_gone.mp4").symlink_to(tmp_path / "nowhere")
    shutil.copy(moving, tmp_path / "good.mp4")
    source = open_source(str(tmp_path))
    assert {source.group(name) for name in source.files()} == {"good.mp4"}
    assert [(f.code, Path(f.source_file).name) for f in source.findings()] == [
        (UNREADABLE_IMAGE, name)
        for name in ("a_empty.mp4", "b_text.mp4", "c_cut.mp4", "d_playlist.avi", "e_concat.mov", "f_gone.mp4")
    ]


@pytest.mark.parametrize("suffix", [".avi", ".mkv"])
def test_a_video_that_ends_early_gives_its_frames_until_there(tmp_path, suffix):
    path = write_video(tmp_path / f"clip{suffix}", list(range(60)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = open_source(str(path))
    assert frames(source) == [0, 10, 20]
    assert [f.code for f in source.findings()] == [DAMAGED_IMAGE]
    assert "expected 60" in source.findings()[0].message
    assert source.read("clip/frame_000020.png").startswith(b"\x89PNG")


def test_settings_are_part_of_the_address(tmp_path, moving):
    address = video_address(str(moving), 0.5, 3)
    assert address == f"{moving}?every_s=0.5&max_hash_bits=3"
    assert video_address(address, 2, 0) == f"{moving}?every_s=2.0&max_hash_bits=0"
    assert open_source(address).address == address
    assert list(open_source(video_address(str(moving), EVERY_S, MAX_HASH_BITS)).files()) == list(
        open_source(str(moving)).files()
    )
    for other in (str(tmp_path), "s3://bucket/photos", "photos.zip", "nowhere.mp4"):
        assert video_address(other, 1.0, 6) == other
        assert not takes(other)


@pytest.mark.parametrize(
    "settings", ["every_s=0.0&max_hash_bits=6", "every_s=1.0&max_hash_bits=65", "every_s=-&max_hash_bits=1"]
)
def test_settings_that_make_no_sense_are_refused(moving, settings):
    with pytest.raises(DatasetError, match=r"dataset\.video"):
        open_source(f"{moving}?{settings}")


def test_a_path_may_look_like_settings(tmp_path):
    odd = tmp_path / "what?every_s=1.0"
    path = write_video(odd / "a&b?.mp4", [1] * 5)
    assert list(open_source(str(path)).files()) == ["a&b?/frame_000000.png"]
    assert list(open_source(video_address(str(odd), 1.0, 6)).files()) == ["a&b?/frame_000000.png"]
