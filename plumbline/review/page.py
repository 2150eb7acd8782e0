"""The comparison as one HTML file that needs nothing else: to open from a disk, or from a CI run's files.

It is made from a `Review`, which may come from a run that is not trusted: every text of it is escaped, and the page's
own policy lets it fetch nothing and run nothing but the page's own filter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from plumbline.report_markdown import UNDEFINED, percent
from plumbline.review.changes import KINDS, Change, Kind, Verdict
from plumbline.review.comment import PICTURES, TITLES, headline, matters_most, nothing_matters
from plumbline.review.page_html import Html, document, element, png_url
from plumbline.review.picture_images import number_of
from plumbline.review.review import Review, Side
from plumbline.review.wording import difference_text, number_text, tally

MOST_ROWS = 2000  # of one table: a browser has trouble with more, and nobody reads them
_SYMBOLS = {
    Verdict.BETTER: "✓", Verdict.WORSE: "✗", Verdict.GONE: "✗", Verdict.NEW: "+", Verdict.CHANGED: "≠",
    Verdict.OTHER_MACHINE: "?", Verdict.OTHER_TEST_SET: "?", Verdict.WITHIN_NOISE: "≈", Verdict.UNCHANGED: "=",
}  # fmt: skip
_ORDER = {verdict: place for place, verdict in enumerate((Verdict.WORSE, Verdict.GONE, Verdict.BETTER))}
# There can be hundreds of these, and most say nothing: the rest of them is folded.
_LONG: tuple[Kind, ...] = ("class", "size", "slice")
_TELLING = {Verdict.WORSE, Verdict.GONE, Verdict.BETTER, Verdict.NEW}
_FRACTIONS: tuple[Kind, ...] = ("score", "class", "size", "slice")
_BAR_WH = (160, 16)
_LARGEST_SHARE = 1.0  # of the base, of a device's number: a bar ends there


def html_page(review: Review, pictures: Mapping[str, bytes]) -> str:
    """Write the page.

    Args:
        review: The comparison; nothing of it is trusted.
        pictures: Stem -> the bytes of a PNG.

    Returns:
        A whole HTML document, to be written as UTF-8.
    """
    state = "passed" if review.state == "passed" and review.gates else "failed" if review.gates else "without gates"
    mark = {"passed": "✓ ", "failed": "✗ "}.get(state, "")
    return document(
        f"{mark}{headline(review)}: {review.head.name} against {review.base.name}",
        element("h1", mark, headline(review), class_=state),
        _sides(review),
        *_matters_most(review),
        *_gates(review),
        _contents(review, pictures),
        *_pictures(review, pictures),
        element("div", id="filter", hidden=""),
        *(part for kind in KINDS for part in _section(review, kind)),
        *_notes(review),
    )


def _sides(review: Review) -> Html:
    return element(
        "p", _side(review.head), " against ", _side(review.base),
        f"; {review.task}, {number_of(review.num_images, 'image')} scored in both. Brackets and thin lines:"
        f" {percent(review.level)} intervals of the difference, paired bootstrap on these images. Points: hundredths.",
        class_="quiet",
    )  # fmt: skip


def _side(side: Side) -> Html:
    commit = f" {side.commit[:12]}" if not side.commit.startswith(side.name) else ""
    return element("span", element("b", side.name), commit, "" if side.is_clean else " with uncommitted changes")


def _matters_most(review: Review) -> Iterator[Html]:
    yield element("h2", "What matters most")
    rows = matters_most(review)
    if not rows:
        yield element("p", nothing_matters(review))
        return
    yield element("ul", *(element("li", *_sentence(row, more)) for row, more in rows))


def _sentence(row: Change, more: int) -> Iterator[str]:
    """Write a change, and of how many more artifacts the same can be said."""
    yield element("b", f"{_SYMBOLS[row.verdict]} {row.verdict.value}", class_=_class_of(row.verdict))
    yield ": "
    yield element("bdi", f"{row.artifact} {row.title}".strip())
    yield f" {number_text(row, row.base)}"
    if row.verdict != Verdict.GONE:
        yield f" → {number_text(row, row.head)}, {difference_text(row)}"
    if more:
        yield f"; and of {number_of(more, 'more artifact')}"


def _gates(review: Review) -> Iterator[Html]:
    yield element("h2", "Gates", id="gates")
    if not review.gates:
        yield element("p", "There are none: params.yaml has no section gates, so nothing was demanded.")
        return
    rows = []
    for gate in review.gates:
        symbol, word = ("✗", "failed") if not gate.passed else ("✓", "passed") if gate.judged else ("?", "not judged")
        verdict = element("td", f"{symbol} {word}", class_=f"verdict is-{word.replace(' ', '-')}")
        rows.append([verdict, element("td", gate.name), element("td", element("code", gate.rule), class_="rule"),
                     element("td", gate.why)])  # fmt: skip
    yield _table(["", "Gate", "Rule", "Why"], [element("tr", *cells) for cells in rows])


def _contents(review: Review, pictures: Mapping[str, bytes]) -> Html:
    kinds = [kind for kind in KINDS if any(row.kind == kind for row in review.changes)]
    links = [element("a", TITLES[kind], href=f"#{kind}") for kind in kinds]
    links += [element("a", "Pictures", href="#pictures")] if pictures else []
    return element("nav", *links)


def _section(review: Review, kind: Kind) -> Iterator[Html]:
    """Write one kind's rows: what says something, then folded what does not."""
    rows = [row for row in review.changes if row.kind == kind]
    if not rows:
        return
    shown = _TELLING if kind in _LONG else set(Verdict) - {Verdict.UNCHANGED}
    told = sorted((row for row in rows if row.verdict in shown), key=lambda row: _ORDER.get(row.verdict, 9))
    folded = [row for row in rows if row.verdict not in shown]
    scale = max((_reach(row) for row in rows), default=0.0)
    yield element("h2", TITLES[kind], id=kind)
    if told:
        yield element("p", tally(rows), class_="quiet")
        yield from _rows(told, scale)
    if folded:
        summary = f"{len(folded):,} more: {tally(folded)}" if told else tally(folded)
        yield element("details", element("summary", summary), *_rows(folded, scale))


def _rows(rows: Sequence[Change], scale: float) -> Iterator[Html]:
    with_artifact, with_note = any(row.artifact for row in rows), any(row.note for row in rows)
    with_difference, with_bar = any(row.difference is not None for row in rows), any(_reach(row) for row in rows)
    head = [*(["Artifact"] if with_artifact else []), "What", "Verdict", "Base", "Here"]
    head += [*(["Difference"] if with_difference else []), *([_scale_text(rows[0], scale)] if with_bar else [])]
    body = []
    for row in rows[:MOST_ROWS]:
        cells = [element("td", row.artifact)] if with_artifact else []
        cells.append(element("td", row.title, title=row.metric if row.metric != row.title else None))
        word = element("td", f"{_SYMBOLS[row.verdict]} {row.verdict.value}", class_=f"verdict {_class_of(row.verdict)}")
        cells += [word, *(_number(row, value) for value in (row.base, row.head))]
        cells += [element("td", difference_text(row), class_="number")] if with_difference else []
        cells += [element("td", _bar(row, scale), class_=f"bar {_class_of(row.verdict)}")] if with_bar else []
        cells += [element("td", row.note, class_="note")] if with_note else []
        body.append(element("tr", *cells, data_verdict=row.verdict.value))
    numbers = () if rows[0].kind == "params" else ("Base", "Here", "Difference")
    yield _table([*head, *(["Note"] if with_note else [])], body, numbers)
    if len(rows) > MOST_ROWS:
        yield element("p", f"{len(rows) - MOST_ROWS:,} more rows are in review.json.", class_="quiet")


def _number(row: Change, value: float | str | None) -> Html:
    text = UNDEFINED if value is None else number_text(row, value)
    return element("td", text, class_=None if row.kind == "params" else "number")


def _table(head: Sequence[str], rows: Sequence[Html], numbers: Sequence[str] = ()) -> Html:
    cells = (element("th", title, scope="col", class_="number" if title in numbers else None) for title in head)
    inside = element("thead", element("tr", *cells)), element("tbody", *rows)
    return element("div", element("table", *inside), class_="scroll")


def _ends(row: Change) -> tuple[float, float, float] | None:
    """Return the difference and the ends of its interval in the unit of the row's bar; None for a row without one."""
    difference = row.difference
    if difference is None or not row.is_comparable:
        return None
    if row.kind in _FRACTIONS:
        return difference, difference if row.low is None else row.low, difference if row.high is None else row.high
    if row.kind == "device" and isinstance(row.base, int | float) and row.base:
        share = max(-_LARGEST_SHARE, min(difference / abs(row.base), _LARGEST_SHARE))
        return share, share, share
    return None


def _reach(row: Change) -> float:
    return max(map(abs, _ends(row) or (0.0,)))


def _scale_text(row: Change, scale: float) -> str:
    return f"±{scale:.0%} of the base" if row.kind == "device" else f"±{scale * 100:.2g} points"


def _bar(row: Change, scale: float) -> Html:
    """Draw the difference from 0 in the middle, and its interval as a thin line."""
    ends = _ends(row)
    if ends is None or scale <= 0:
        return Html("")
    width, height = _BAR_WH
    middle = height / 2
    at, low, high = ((0.5 + end / scale * 0.48) * width for end in ends)
    left, right = min(at, width / 2), max(at, width / 2)
    parts = [
        element("rect", x=f"{left:.1f}", y="4", width=f"{right - left:.1f}", height=f"{height - 8}"),
        element("line", x1=f"{width / 2}", x2=f"{width / 2}", y1="0", y2=f"{height}", class_="zero"),
    ]
    if high > low:
        parts.append(element("path", d=f"M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 3}v6M{high:.1f}"
                                       f" {middle - 3}v6", fill="none", class_="ends"))  # fmt: skip
    label = f"{row.title}: {difference_text(row)}"
    return element("svg", *parts, width=f"{width}", height=f"{height}", role="img", aria_label=label)


def _pictures(review: Review, pictures: Mapping[str, bytes]) -> Iterator[Html]:
    if not pictures:
        return
    stems = [*(stem for stem in PICTURES if stem in pictures), *(stem for stem in pictures if stem not in PICTURES)]
    figures = []
    for stem in stems:
        title = PICTURES.get(stem, stem) + ("" if stem == "latency" else f" ({review.shown})")
        picture = element("img", src=png_url(pictures[stem]), alt=title)
        # The address makes it as wide as the page, by the style alone.
        larger = element("a", picture, href=f"#picture-{stem}", title="larger")
        figures.append(element("figure", element("figcaption", title), larger, id=f"picture-{stem}"))
    yield element("h2", "Pictures")
    yield element("div", *figures, id="pictures")


def _notes(review: Review) -> Iterator[Html]:
    if review.notes:
        yield element("h2", "Notes", id="notes")
        yield element("ul", *(element("li", note) for note in review.notes))


def _class_of(verdict: Verdict) -> str:
    return f"is-{verdict.value.replace(' ', '-')}"
