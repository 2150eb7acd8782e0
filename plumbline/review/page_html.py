"""Pieces of HTML that cannot be broken out of, and what a page needs to stand alone: style, script and policy."""

from __future__ import annotations

import base64
import hashlib
import html
import re

# No file of text may have these; and the second line's turn around what stands behind them.
_UNSEEN = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
_VOID = {"img", "meta"}


class Html(str):
    """A text that is HTML already: made by `element`, or ours."""

    __slots__ = ()


def escaped(text: str) -> Html:
    """Return a text as HTML that shows it; a character that is not seen, but does something, becomes a mark.

    >>> escaped('<a href="x">')
    '&lt;a href=&quot;x&quot;&gt;'
    """
    return text if isinstance(text, Html) else Html(html.escape(_UNSEEN.sub("\N{REPLACEMENT CHARACTER}", text)))


def element(tag: str, *inside: str, **attributes: str | None) -> Html:
    """Return an element; every text in it that is no `Html`, and every attribute, is escaped.

    Args:
        tag: Its name.
        inside: What it holds, one after the other.
        attributes: ``class_`` is class, ``data_x`` is data-x; None leaves one out.

    >>> element("p", "a < b", element("b", "!"), class_="x")
    '<p class="x">a &lt; b<b>!</b></p>'
    """
    written = "".join(
        f' {name.strip("_").replace("_", "-")}="{escaped(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    content = "".join(map(escaped, inside))
    return Html(f"<{tag}{written}>" if tag in _VOID else f"<{tag}{written}>{content}</{tag}>")


def document(title: str, *body: str) -> str:
    """Return a whole page that fetches nothing and runs nothing but `SCRIPT`, whatever its texts are."""
    head = (
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy()),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", title),
        element("style", Html(STYLE)),
    )
    page = element("html", element("head", *head), element("body", *body, element("script", Html(SCRIPT))), lang="en")
    return f"<!DOCTYPE html>\n{page}\n"


def png_url(data: bytes) -> str:
    """Return a picture as a URL of its own."""
    return f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}"


def _policy() -> str:
    style, script = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (STYLE, SCRIPT))
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{style}'; script-src 'sha256-{script}';"
        " base-uri 'none'; form-action 'none'"
    )


STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1f2328; --quiet: #59636e; --line: #d1d9e0; --shade: #f6f8fa;
  --better: #0a58a0; --worse: #b34000; --other: #6b4fa0; }
@media (prefers-color-scheme: dark) { :root { --paper: #15181c; --ink: #e6e8ea; --quiet: #9aa4ae; --line: #363c44;
  --shade: #1f242a; --better: #6cb6ff; --worse: #ff9a55; --other: #c3a6ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem 1.5rem 4rem; max-width: 1280px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0.4rem 0; } h2 { font-size: 1.2rem; margin: 2.2rem 0 0.4rem; }
h1, h2, p, li, td, th, b, code, figcaption { unicode-bidi: isolate; overflow-wrap: anywhere; }
td, th, td code { overflow-wrap: break-word; }
p { margin: 0.4rem 0; } .quiet, figcaption, summary { color: var(--quiet); }
h1.passed { color: var(--better); } h1.failed { color: var(--worse); }
nav, #filter { display: flex; flex-wrap: wrap; gap: 0.3rem 1rem; margin: 0.8rem 0; } nav a { color: var(--better); }
#filter { position: sticky; top: 0; background: var(--paper); padding: 0.5rem 0;
  border-bottom: 1px solid var(--line); }
#filter button, #filter input { font: inherit; color: inherit; background: var(--shade); padding: 0.15rem 0.7rem;
  border: 1px solid var(--line); border-radius: 1rem; }
#filter [aria-pressed=true] { outline: 2px solid var(--better); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--quiet); font-weight: 600; white-space: nowrap; }
thead th { background: var(--shade); }
td, th { padding: 0.28rem 0.6rem; border-bottom: 1px solid var(--line); vertical-align: top; min-width: 4.5em; }
td.number, th.number { text-align: right; white-space: nowrap; } td.verdict { white-space: nowrap; font-weight: 600; }
td.note { color: var(--quiet); max-width: 26em; overflow-wrap: anywhere; } td.rule { min-width: 15em; }
td.bar { min-width: 172px; width: 172px; }
.is-better, .is-passed { color: var(--better); } .is-worse, .is-gone, .is-failed { color: var(--worse); }
.is-changed, .is-new, .is-other-machine, .is-other-test-set, .is-not-judged { color: var(--other); }
.is-within-noise, .is-unchanged { color: var(--quiet); font-weight: 400 !important; }
svg { display: block; } svg .zero { stroke: var(--quiet); } svg .ends { stroke: var(--ink); stroke-width: 1.5; }
svg rect { fill: var(--quiet); opacity: 0.55; } .is-better svg rect { fill: var(--better); opacity: 0.8; }
.is-worse svg rect { fill: var(--worse); opacity: 0.8; }
details { margin: 0.5rem 0; } summary { cursor: pointer; padding: 0.2rem 0; }
#pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(30rem, 100%), 1fr)); gap: 1rem; }
figure { margin: 0; } figure:target { grid-column: 1 / -1; }
figure img { max-width: 100%; background: #fff; border: 1px solid var(--line);
  border-radius: 6px; padding: 6px; }
code { background: var(--shade); padding: 0.1rem 0.35rem; border-radius: 4px; font-size: 0.92em; }
@media print { #filter { display: none; } }
"""

# The page is whole without it: it adds a filter by verdict and by words.
SCRIPT = """
"use strict";
const rows = [...document.querySelectorAll("tr[data-verdict]")];
const filter = document.getElementById("filter");
const folds = [...document.querySelectorAll("details")].map(fold => [fold, fold.open]);
let verdict = "", words = "";
function show() {
  for (const row of rows)
    row.hidden = (verdict && row.dataset.verdict !== verdict) || !row.textContent.toLowerCase().includes(words);
  for (const [fold, open] of folds) fold.open = open || Boolean(verdict || words);
}
function button(name, label) {
  const made = document.createElement("button");
  made.type = "button"; made.textContent = label; made.setAttribute("aria-pressed", String(name === ""));
  made.addEventListener("click", () => {
    verdict = name;
    for (const other of filter.querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === made));
    show();
  });
  filter.append(made);
}
if (rows.length && filter) {
  const counts = new Map();
  for (const row of rows) counts.set(row.dataset.verdict, (counts.get(row.dataset.verdict) || 0) + 1);
  button("", "all " + rows.length);
  for (const [name, count] of counts) button(name, name + " " + count);
  const search = document.createElement("input");
  search.type = "search"; search.placeholder = "a word in the row"; search.setAttribute("aria-label", "filter rows");
  search.addEventListener("input", () => { words = search.value.toLowerCase(); show(); });
  filter.append(search); filter.hidden = false;
}
"""
