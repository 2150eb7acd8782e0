"""The one comment of a pull request: the verdict, what matters most, and everything else folded below.

It is made from a `Review`, which may come from a run that is not trusted: every text of it is escaped, so that a class
or a branch can be called what it likes without mentioning people, linking, or drawing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence

from plumbline.report_markdown import UNDEFINED, markdown_table, percent
from plumbline.review.changes import ELSEWHERE, KINDS, SCORES, Change, Kind, Verdict
from plumbline.review.review import GateResult, Review, Side
from plumbline.review.wording import difference_text, number_text, tally

MARKER = "<!-- plumbline:review -->"
MOST_CHARACTERS = 65_536  # of a comment on GitHub; GitLab takes a million
_MOST_ROWS = 200  # of one folded table
_MOST_GATES, _MOST_NOTES = 20, 10  # at the top, so that no number of them crowds out what stands there
_SYMBOLS = {
    Verdict.BETTER: "🟢 better", Verdict.WORSE: "🔴 worse", Verdict.WITHIN_NOISE: "⚪ within noise",
    Verdict.UNCHANGED: "unchanged", Verdict.CHANGED: "🔵 changed", Verdict.NEW: "🆕 new", Verdict.GONE: "❌ gone",
    Verdict.OTHER_MACHINE: "❔ other machine", Verdict.OTHER_TEST_SET: "❔ other test set",
}  # fmt: skip
TITLES: dict[Kind, str] = {
    "score": "Scores", "class": "By class", "size": "By size of boxes", "slice": "By slice of the images",
    "device": "On the device", "data": "Data", "validation": "Validation findings", "params": "Params",
}  # fmt: skip
PICTURES = {
    "curves": "Precision, recall and F1 of both", "confusion": "What is confused more or less",
    "latency": "Accuracy and latency of all artifacts", "changed": "Images that got worse",
}  # fmt: skip
# How much a row matters for the three at the top, of two that differ equally.
_WEIGHT: dict[str, float] = {
    "score": 1.0, "class": 0.2, "size": 0.1, "slice": 0.1,  # parts move with the whole, and more by chance
    "device": 0.1,  # a tenth slower weighs as much as one point of mAP
}  # fmt: skip
_DEVICE = ("latency_ms_p50", "size_bytes", "accepted")


def comment(review: Review, urls: Mapping[str, str], limit: int = MOST_CHARACTERS) -> str:
    """Write the comment as Markdown.

    Args:
        review: The comparison.
        urls: Stem of a picture -> where a reader's browser finds it; one without a URL is left out.
        limit: Most characters; the folded tables are shortened to it from below, and the comment says so.
    """
    top = "\n\n".join(_top(review))
    parts = [*_passed(review), *_picture_parts(urls), *_tables(review)]
    cut = "*Cut to the size of a comment: the report has all of it.*"
    whole = "\n\n".join([top, *parts]) + "\n"
    if len(whole) <= limit:
        return whole
    room = limit - len(top) - len(cut) - 4
    kept: list[str] = []
    for part in parts:
        if len(part) + 2 > room:
            break
        kept.append(part)
        room -= len(part) + 2
    return "\n\n".join([top, *kept, cut])[:limit]


def _at_start(text: str) -> str:
    r"""Keep a line's start from being a heading or a list.

    >>> _at_start("# a"), _at_start("1. b"), _at_start("c - d")
    ('\\# a', '1\\. b', 'c - d')
    """
    return re.sub(r"^(\d+)([.)])", r"\1\\\2", re.sub(r"^([#+=-])", r"\\\1", text))


def headline(review: Review) -> str:
    """Say in a few words whether it may be merged; short enough for a commit status."""
    failed = [gate.name for gate in review.gates if not gate.passed]
    if failed:
        names = ", ".join(failed[:3]) + (f" and {len(failed) - 3} more" if len(failed) > 3 else "")
        return f"{len(failed)} of {len(review.gates)} gates failed: {names}"
    if not review.gates:
        return "no gates: params.yaml has none"
    said = "the gate passed" if len(review.gates) == 1 else f"all {len(review.gates)} gates passed"
    unjudged = [gate.name for gate in review.gates if not gate.judged]
    if not unjudged:
        return said
    found = {row.verdict for row in review.changes}
    why = " or ".join(verdict.value for verdict in ELSEWHERE if verdict in found)
    return f"{said}, {', '.join(unjudged)} not judged" + (f" ({why})" if why else "")


def escape(text: str) -> str:
    r"""Write a text that means nothing to Markdown or HTML, mentions nobody, and leaves what follows where it is.

    >>> escape("<b> @me #1 [x](y) `z` |")
    '&lt;b&gt; @\u200bme #\u200b1 \\[x\\](y) \\`z\\` \\|'
    """
    text = "".join(one for one in text if one.isspace() or unicodedata.category(one) not in ("Cc", "Cf"))
    text = " ".join(text.split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_{}\[\]|~$])", r"\\\1", text)
    text = text.replace("://", ":/\u200b/")
    text = re.sub(r"(?i)(www)\.", "\\1\u200b.", text)
    text = re.sub(r"(@|[#!](?=\w))", "\\1\u200b", text)
    is_from_the_right = any(unicodedata.bidirectional(one) in ("R", "AL", "AN") for one in text)
    return text + "\u200e" if is_from_the_right else text  # else the numbers behind a name are read in its direction


def matters_most(review: Review, most: int = 3) -> list[tuple[Change, int]]:
    """Return the changes by more than noise that matter most, the largest first.

    What vanished comes first. Then comes the best and the worst of each kind, so that one change is not told thrice:
    scores count by their difference, and the headline before the others; latency and size by their share of the base.
    The same number of several artifacts is one change: the row of the artifact where it is largest, and how many more
    there are.
    """
    by_metric: dict[tuple[str, str, Verdict], list[Change]] = {}
    gone: dict[str, Change] = {}
    for row in sorted(review.changes, key=lambda row: (row.metric != review.headline, -_weight(row), row.artifact)):
        if row.verdict == Verdict.GONE and row.kind in ("score", "device"):
            gone.setdefault(row.artifact, row)
        elif row.verdict in (Verdict.BETTER, Verdict.WORSE) and _weight(row) > 0:
            by_metric.setdefault((row.kind, row.metric, row.verdict), []).append(row)
    ranked = [(max(rows, key=_weight), len(rows) - 1) for rows in by_metric.values()]
    first: dict[tuple[str, Verdict], tuple[Change, int]] = {}
    for told in sorted(ranked, key=lambda told: (told[0].metric != review.headline, -_weight(told[0]))):
        first.setdefault((told[0].kind, told[0].verdict), told)
    rest = [told for told in ranked if told not in first.values()]
    return [
        *((row, 0) for row in gone.values()),
        *sorted(first.values(), key=_rank),
        *sorted(rest, key=_rank),
    ][:most]


def nothing_matters(review: Review) -> str:
    """Say what is true where `matters_most` finds nothing; params, of which nothing is better, are left aside."""
    said = Verdict.UNCHANGED, Verdict.WITHIN_NOISE
    rows = [row for row in review.changes if row.kind != "params" and row.verdict not in said]
    if not rows:
        return "Nothing differs by more than noise."
    return f"No score, latency p50 or size is known to be better or worse; the rest: {tally(rows)}."


def _rank(told: tuple[Change, int]) -> float:
    return -_weight(told[0])


def _weight(row: Change) -> float:
    if row.kind != "device":
        return abs(row.difference or 0) * _WEIGHT.get(row.kind, 0.0)
    if row.metric not in _DEVICE or not isinstance(row.base, int | float) or not row.base:
        return 0.0
    return abs(row.difference or 0) / abs(row.base) * _WEIGHT["device"]


def _top(review: Review) -> Iterator[str]:
    yield MARKER
    mark = "✅" if review.state == "passed" and review.gates else "❌" if review.gates else "⚪"
    yield f"### {mark} plumbline: {escape(headline(review))}"
    yield _sides(review)
    rows = matters_most(review)
    if rows:
        yield "\n".join(f"- {_SYMBOLS[row.verdict]}: {_sentence(row, more)}" for row, more in rows)
    else:
        yield nothing_matters(review)
    failed = [gate for gate in review.gates if not gate.passed]
    if failed:
        yield _gate_table(failed[:_MOST_GATES])
    if review.notes:
        more = len(review.notes) - _MOST_NOTES
        notes = [*review.notes[:_MOST_NOTES], *([f"{more} more notes are in the report."] if more > 0 else [])]
        yield "\n".join(f"- {_at_start(escape(note))}" for note in notes)


def _gate_table(gates: Sequence[GateResult]) -> str:
    body = [[escape(gate.name), f"<code>{escape(gate.rule)}</code>", _mark(gate), escape(gate.why)] for gate in gates]
    return markdown_table(["Gate", "Rule", "", "Why"], body, left=4, escaped=True)


def _mark(gate: GateResult) -> str:
    return "❌" if not gate.passed else "✅" if gate.judged else "❔"


def _passed(review: Review) -> Iterator[str]:
    passed = [gate for gate in review.gates if gate.passed]
    if passed:
        unjudged = sum(not gate.judged for gate in passed)
        more = f", {unjudged} of them not judged" if unjudged else ""
        yield _folded(f"{len(passed)} gate{'' if len(passed) == 1 else 's'} passed{more}", _gate_table(passed))


def _sides(review: Review) -> str:
    head = f"{_side(review.head)} against {_side(review.base)}"
    return f"{head}, {review.num_images:,} images scored in both; intervals {percent(review.level)}, paired bootstrap."


def _side(side: Side) -> str:
    is_hash = len(side.name) >= 7 and side.commit.startswith(side.name)
    name = side.name[:12] if is_hash else side.name
    at = "" if is_hash else f" ({side.commit[:8]}{'' if side.is_clean else ' with changes'})"
    return f"**{escape(name)}**{at}"


def _sentence(row: Change, more: int) -> str:
    if row.verdict == Verdict.GONE:
        return f"{escape(row.artifact or row.title)}: its {escape(row.title)} was {escape(number_text(row, row.base))}"
    where = escape(
        " ".join(part for part in (row.artifact, row.kind if row.kind == "class" else "", row.title) if part)
    )
    others = "" if not more else f"; and of {more} more artifact{'' if more == 1 else 's'}"
    change = f"{number_text(row, row.base)} → {number_text(row, row.head)}, {difference_text(row)}"
    return f"{where} {escape(change)}{others}"


def _picture_parts(urls: Mapping[str, str]) -> Iterator[str]:
    for stem, title in PICTURES.items():
        if stem in urls:
            yield _folded(title, f"![{title}]({urls[stem]})")


def _tables(review: Review) -> Iterator[str]:
    primary = {row.metric for row in review.changes if row.low is not None} | {review.headline}
    same = []
    for kind in KINDS:
        rows = [row for row in review.changes if row.kind == kind]
        told = [row for row in rows if row.verdict != Verdict.UNCHANGED]
        shown = [row for row in told if kind not in SCORES or row.metric in primary or _is_of_class(row)]
        if shown:
            yield _folded(f"{TITLES[kind]}: {_tally(rows, shown)}", _table(shown, len(told) - len(shown)))
        elif told:
            yield f"{TITLES[kind]}: {len(told)} numbers without an interval are in the report."
        elif rows:
            same.append(TITLES[kind].lower())
    if same:
        yield f"Nothing changed: {', '.join(same)}."


def _is_of_class(row: Change) -> bool:
    """Whether it is the one score that a class is known by: it bears the class's name."""
    return row.kind == "class" and row.title != row.metric


def _tally(rows: Sequence[Change], shown: Sequence[Change]) -> str:
    return tally([*shown, *(row for row in rows if row.verdict == Verdict.UNCHANGED)])


def _table(rows: Sequence[Change], num_left_out: int) -> str:
    with_artifact = any(row.artifact for row in rows)
    with_note = any(row.note for row in rows)
    head = [*(["Artifact"] if with_artifact else []), "What", "Verdict", "Base", "Here", "Difference"]
    order = {verdict: place for place, verdict in enumerate(_FIRST)}
    ranked = sorted(rows, key=lambda row: order.get(row.verdict, len(order)))
    body = [
        [*([escape(row.artifact)] if with_artifact else []), *_cells(row), *([escape(row.note)] if with_note else [])]
        for row in ranked[:_MOST_ROWS]
    ]
    left = 3 if with_artifact else 2
    table = markdown_table([*head, *(["Note"] if with_note else [])], body, left=left, escaped=True).strip()
    rest = max(len(rows) - _MOST_ROWS, 0) + num_left_out
    return table if not rest else f"{table}\n\n*{rest:,} more numbers are in the report.*"


_FIRST = (Verdict.WORSE, Verdict.BETTER, Verdict.GONE)


def _cells(row: Change) -> list[str]:
    return [
        escape(row.title),
        _SYMBOLS[row.verdict],
        *(UNDEFINED if value is None else escape(number_text(row, value)) for value in (row.base, row.head)),
        escape(difference_text(row)),
    ]


def _folded(title: str, inside: str) -> str:
    # The empty lines are what makes GitHub and GitLab read Markdown in it.
    return f"<details><summary>{title}</summary>\n\n{inside}\n\n</details>"
