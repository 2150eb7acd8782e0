"""Great Expectations' Data Docs without the network: its pages fetch their styles, scripts and pictures from CDNs."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# What the styles from elsewhere do for reading the pages, as far as it is needed.
_STYLE = """
body { font-family: sans-serif; margin: 1rem 2rem; color: #222; }
.container-fluid > .row { display: flex; gap: 2rem; }
.container-fluid > .row > .col-md-2 { flex: 0 0 14rem; }
.container-fluid > .row > .col-md-10 { flex: 1; min-width: 0; }
h1, h4, h5, h6 { margin: 1rem 0 0.3rem; font-size: 1.05rem; }
h1 { font-size: 1.4rem; }
table { border-collapse: collapse; margin: 0.5rem 0; }
td, th { border-bottom: 1px solid #ddd; padding: 0.25rem 0.8rem 0.25rem 0; text-align: left; vertical-align: top; }
ol.breadcrumb, ul.nav { list-style: none; padding: 0; }
ol.breadcrumb li { display: inline; margin-right: 1rem; }
.text-success { color: #117733; } .text-danger { color: #c0392b; }
.fa-check-circle::before { content: "\\2713\\a0 holds"; font-style: normal; }
.fa-times::before { content: "\\2717\\a0 fails"; font-style: normal; }
.fa-exclamation-triangle::before { content: "! error"; font-style: normal; }
i { font-style: normal; white-space: nowrap; }
.card.mb-3, footer { display: none; }
"""


@dataclass(frozen=True)
class SuiteOutcome:
    """What one suite came to.

    Attributes:
        name: Of the suite and its table.
        num_expectations: How many it has.
        num_failed: How many of them fail.
    """

    name: str
    num_expectations: int
    num_failed: int


def make_offline(folder: Path, outcomes: Sequence[SuiteOutcome]) -> None:
    """Take everything remote out of the pages of a built site, and write an index that needs no script.

    Args:
        folder: What `build_data_docs` filled; its files are changed.
        outcomes: One per suite, in the order in which the index shall list them.
    """
    for page in sorted(folder.rglob("*.html")):
        page.write_text(offline(page.read_text(encoding="utf-8")), encoding="utf-8")
    (folder / "index.html").write_text(_index(folder, outcomes), encoding="utf-8")


def offline(page: str) -> str:
    """Return a page that asks nothing of the network, and whose marks are letters instead of a remote font.

    >>> offline('<link href="https://cdn.example/a.css"/><script src="https://b"></script><p>x</p>')
    '<p>x</p>'
    """
    page = re.sub(r"<script\b.*?</script>", "", page, flags=re.DOTALL)
    page = re.sub(r"url\(['\"]?https?://[^)]*\)", "none", page)
    page = re.sub(r"<(?:link|img)\b[^>]*?(?:href|src)=\"https?://[^>]*>", "", page)
    return page.replace("</head>", f"<style>{_STYLE}</style></head>", 1)


def _index(folder: Path, outcomes: Sequence[SuiteOutcome]) -> str:
    rows = []
    for outcome in outcomes:
        pages = sorted((folder / "validations" / outcome.name).rglob("*.html"))
        links = [(page.relative_to(folder).as_posix(), "result") for page in pages]
        links.append((f"expectations/{outcome.name}.html", "what is expected"))
        cells = ", ".join(f'<a href="{html.escape(link)}">{html.escape(text)}</a>' for link, text in links)
        failed = outcome.num_failed
        state = (
            f'<span class="text-danger">{failed} fail</span>' if failed else '<span class="text-success">hold</span>'
        )
        rows.append(f"<tr><td>{html.escape(outcome.name)}</td><td>{outcome.num_expectations}</td>"
                    f"<td>{state}</td><td>{cells}</td></tr>")  # fmt: skip
    head = "<tr><th>Table</th><th>Expectations</th><th>Outcome</th><th>Pages</th></tr>"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Data Docs</title>'
        f"<style>{_STYLE}</style></head><body><h1>Data Docs</h1>"
        "<p>What must hold of the tables after all edits, checked by Great Expectations.</p>"
        f"<table>{head}{''.join(rows)}</table></body></html>\n"
    )
