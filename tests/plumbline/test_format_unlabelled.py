"""Images without labels: chosen, never guessed."""

from __future__ import annotations

import cv2
import numpy as np

from plumbline.faults import MISSING_LABEL
from plumbline.formats import unlabelled
from plumbline.formats.reading import ImageRecord, LabelRow, ReadResult, build_dataset
from plumbline.image_scan import scan_image
from plumbline.sources.folder import open_source


def test_every_image_is_told_and_kept_and_nothing_is_recognised(tmp_path):
    for name in ("b.png", "a.png"):
        cv2.imwrite(str(tmp_path / name), np.full((8, 8), 99, np.uint8))
    (tmp_path / "a.txt").write_text("0 .5 .5 .1 .1\n")
    source = open_source(str(tmp_path))
    assert not unlabelled.sniff(source)
    images = unlabelled.find_images(source)
    assert images == ["a.png", "b.png"]
    result = unlabelled.read(source, ("cat",), {name: scan_image(tmp_path / name) for name in images})
    assert (result.rows, result.splits, result.declared_names) == ([], {}, ())
    assert [(finding.code, finding.image) for finding in result.findings] == [
        (MISSING_LABEL, "a.png"),
        (MISSING_LABEL, "b.png"),
    ]


def test_writes_the_images_where_they_stand_and_counts_what_goes(tmp_path):
    (tmp_path / "images" / "x").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "images" / "x" / "a.png"), np.full((8, 8), 99, np.uint8))
    scans = {"x/a.png": scan_image(tmp_path / "images" / "x" / "a.png")}
    box = LabelRow("x/a.png", 0, "cat", (0, 0, 4, 4), "a.xml", 1, difficult=True)
    whole = LabelRow("x/a.png", 0, "cat", None, "a.csv", 1)
    result = ReadResult(rows=[box, whole], splits={"x/a.png": "train"})
    dataset = build_dataset([ImageRecord("x/a.png", "", "x/a.png")], scans, result, ("cat",), tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    losses = unlabelled.write(dataset, out)
    assert [(loss.partition(" (")[0], int(loss.rpartition(": ")[2])) for loss in losses] == [
        ("boxes left out", 1),
        ("classes of a whole image left out", 1),
        ("images no longer dealt to train, val or test", 1),
    ]
    assert [p for p in out.rglob("*") if p.is_file()] == [out / "x" / "a.png"]
    assert (out / "x" / "a.png").read_bytes() == (tmp_path / "images" / "x" / "a.png").read_bytes()
