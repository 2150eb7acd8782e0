"""What a flow run leaves in Prefect's UI: pages that hold their pictures, numbers as JSON can have them."""

from __future__ import annotations

import base64
import struct
import zlib

import cv2
import numpy as np

from pipelines.flow_artifacts import embed_images, metric_rows, plots_page


def test_images_of_the_report_are_embedded_while_they_fit(tmp_path):
    (tmp_path / "small.png").write_bytes(png())
    (tmp_path / "large.png").write_bytes(png() + b"\0" * 1000)
    page = "![a b](small.png) ![](large.png) ![gone](gone.png) ![web](https://example.com/x.png) [text](small.png)"

    shown = embed_images(page, tmp_path, limit_bytes=500)

    first, rest = shown.split(")", 1)
    assert first.startswith("![a b](data:image/png;base64,iVBORw0KGgo")
    assert rest == (
        " *(image large.png: )* *(image gone.png: gone)* ![web](https://example.com/x.png) [text](small.png)"
    )


def test_photographs_are_embedded_as_what_they_are(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff")
    assert embed_images("![](photo.jpg)", tmp_path) == "![](data:image/jpeg;base64,/9j/)"


def test_numbers_that_json_cannot_hold_become_words():
    rows = metric_rows({"": {"data": {"m.json": {"data": {"a": float("nan"), "b": {"c": 1}}}}}})

    assert [row["value"] for row in rows] == ["nan", 1]


def test_every_plot_that_dvc_knows_is_drawn(empty_project, tmp_path):
    """A curve by DVC's own template, and a picture; both as DVC answers, so that its answer is read rightly."""
    from pipelines.graph import ask_dvc

    empty_project.write(
        dvc_yaml="stages: {a: {cmd: 'true', plots: [curve.csv: {cache: false, x: epoch, y: loss}, p.png]}}",
        curve_csv="epoch,loss\n1,3\n2,2\n3,1.5\n",
    )
    (empty_project.root / "p.png").write_bytes(png())

    page = plots_page(ask_dvc(empty_project.root, "plots", "show", "--out", str(tmp_path / "plots")))

    curve, picture = (part for part in page.split("### ") if part)
    assert curve.startswith("curve.csv")
    drawn = cv2.imdecode(np.frombuffer(base64.b64decode(curve.partition("base64,")[2].rstrip(")\n")), np.uint8), 1)
    assert drawn.shape[0] > 100
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 2, "an empty picture has one colour"
    assert picture.startswith("p.png")
    assert base64.b64decode(picture.partition("base64,")[2].rstrip(")\n")) == png()


def test_plots_that_do_not_fit_are_named(tmp_path):
    (tmp_path / "p.png").write_bytes(png())
    shown = {"data": {"p.png": [{"type": "image", "url": str(tmp_path / "p.png")}]}}

    assert "base64" in plots_page(shown)
    assert plots_page(shown, limit_bytes=10) == "### p.png\n\n*(no room for its picture: p.png)*\n"
    assert plots_page({}) == ""


def png() -> bytes:
    """One grey pixel."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\x80")) + chunk(b"IEND", b"")
    )
