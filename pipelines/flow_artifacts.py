"""What a flow run leaves in Prefect: the metrics table, the plots and the report as artifacts."""

from __future__ import annotations

import base64
import json
import math
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from pipelines.graph import ask_dvc

REPORT = Path("reports/report/report.md")
EMBED_BYTES = 3_000_000  # of images, in all, within one artifact
IMAGE_LINK = re.compile(r"!\[(?P<alt>[^\]]*)\]\((?P<path>[^)\s:]+\.(?:png|jpe?g))\)")  # no colon: not a URL


def keep_artifacts(root: Path) -> None:
    """Store the report, the metrics and the plots that a project has."""
    keep_report(root)
    keep_metrics(root)
    keep_plots(root)


def keep_report(root: Path) -> None:
    """Store the report, where there is one, as the artifact ``report``."""
    path = root / REPORT
    if path.is_file():
        text = embed_images(path.read_text(encoding="utf-8"), path.parent)
        create_markdown_artifact(text, key="report", description=f"`{REPORT}` as this run left it")


def keep_metrics(root: Path) -> None:
    """Store every number that ``dvc metrics show`` knows as the artifact ``metrics``."""
    rows = metric_rows(ask_dvc(root, "metrics", "show"))
    if rows:
        create_table_artifact(rows, key="metrics", description="`dvc metrics show`")


def keep_plots(root: Path) -> None:
    """Store every plot that ``dvc plots show`` knows, drawn, as the artifact ``plots``."""
    with tempfile.TemporaryDirectory() as folder:  # DVC puts plots that are images there, and leaves them
        page = plots_page(ask_dvc(root, "plots", "show", "--out", folder))
    if page:
        create_markdown_artifact(page, key="plots", description="`dvc plots show`")


def plots_page(shown: Mapping[str, Any], limit_bytes: int = EMBED_BYTES) -> str:
    """Draw each plot of the answer of ``dvc plots show --json`` into one Markdown page, without any network.

    Args:
        shown: ``{"data": {name: [{"type": "vega", "content": ...} or {"type": "image", "url": path}]}}``.
        limit_bytes: Of all pictures together; the smallest are taken, of the others the name alone is given.
    """
    plots = [(name, *_picture(plot)) for name in sorted(shown.get("data", {})) for plot in shown["data"][name]]
    left = limit_bytes
    fitting = set()
    for index, (_name, _kind, picture) in sorted(enumerate(plots), key=lambda plot: len(plot[1][2])):
        if 0 < len(picture) <= left:  # the smallest first: curves before photographs
            fitting.add(index)
            left -= len(picture)
    parts: list[str] = []
    for index, (name, kind, picture) in enumerate(plots):
        link = f"![{name}]({_data_uri(picture, kind)})" if index in fitting else f"*(no room for its picture: {name})*"
        parts += [f"### {name}", "", link, ""]
    return "\n".join(parts)


def _picture(plot: Mapping[str, Any]) -> tuple[str, bytes]:
    """Return the MIME subtype and the bytes of one plot."""
    if plot["type"] == "image":
        path = Path(plot["url"])
        return _kind(path), path.read_bytes() if path.is_file() else b""
    import vl_convert

    content = plot["content"]
    return "png", vl_convert.vegalite_to_png(content if isinstance(content, str) else json.dumps(content))


def embed_images(markdown: str, folder: Path, limit_bytes: int = EMBED_BYTES) -> str:
    """Put the PNG and JPEG files that a page links to into the page, as ``data:`` URIs.

    Prefect stores the text alone, and its UI shows an image's link as it is (``<img src=...>``), so a relative one
    would show nothing. An image that is missing or does not fit any more becomes a note.

    Args:
        markdown: The page.
        folder: What its links are relative to.
        limit_bytes: Of all image files together; the first ones that fit are taken.
    """
    left = limit_bytes

    def embedded(link: re.Match[str]) -> str:
        nonlocal left
        path = folder / link["path"]
        if not path.is_file() or path.stat().st_size > left:
            return f"*(image {link['path']}: {link['alt']})*"
        content = path.read_bytes()
        left -= len(content)
        return f"![{link['alt']}]({_data_uri(content, _kind(path))})"

    return IMAGE_LINK.sub(embedded, markdown)


def _kind(path: Path) -> str:
    return "png" if path.suffix == ".png" else "jpeg"


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def metric_rows(shown: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Turn the answer of ``dvc metrics show --json`` into rows of file, metric and value.

    >>> metric_rows({"": {"data": {"b.json": {"data": {"map50": 0.9, "ms": {"p50": 2}}}}}})
    [{'file': 'b.json', 'metric': 'map50', 'value': 0.9}, {'file': 'b.json', 'metric': 'ms.p50', 'value': 2}]
    """
    files = shown.get("", {}).get("data", {})
    return [
        {"file": file, "metric": metric, "value": value}
        for file in sorted(files)
        for metric, value in _flat(files[file].get("data", {}), "")
    ]


def _flat(values: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(values, dict):
        for key, value in values.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(values, float) and not math.isfinite(values):
        yield prefix, str(values)  # the API takes strict JSON
    else:
        yield prefix, values
