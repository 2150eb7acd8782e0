"""The page of a comparison: whole, alone, and not to be broken out of."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from small_reviews import change, gate, review_of

from plumbline.review import page
from plumbline.review.changes import KINDS, Verdict
from plumbline.review.comment import TITLES, comment
from plumbline.review.page import html_page
from plumbline.review.page_html import SCRIPT, STYLE
from plumbline.review.review import Side

VOID = {"meta", "img"}
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style></script><iframe src=https://e.example>",
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "--><!-- & &lt; ]]>",
    "\u202eevil \x00\x1b[31m",
)


class Page(HTMLParser):
    """Elements in their order, with their attributes and texts, as a browser would find them."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.open, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def of(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self):
        return "\n".join(data for tag, data in self.texts if tag not in ("style", "script"))

    def rows(self):
        """The verdict of every row of the sections."""
        return [attributes["data-verdict"] for attributes in self.of("tr") if "data-verdict" in attributes]


def page_of(review, pictures=None):
    return Page(html_page(review, pictures or {}))


def test_it_fetches_nothing_and_runs_its_own_script_alone():
    text = html_page(review_of([change()], [gate()]), {"curves": b"png"})
    found = Page(text)
    policies = [meta["content"] for meta in found.of("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    for source, kind in ((SCRIPT, "script"), (STYLE, "style")):
        content = [data for tag, data in found.texts if tag == kind]
        assert content == [source]
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policies[0]
    assert policies[0].startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policies[0]
    assert not re.search(r"https?://|//[a-z]", text)
    for tag, attributes in found.elements:
        assert tag not in ("link", "iframe", "object", "base", "form")
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        assert attributes.get("href", "#").startswith("#")
        assert attributes.get("src", "data:image/png;base64,").startswith("data:image/png;base64,")


def full_review(text):
    """A review that has the text wherever one can stand."""
    changes = [change(kind, artifact=text, metric=text, title=text, note=text) for kind in KINDS]
    changes += [change("params", base=text, head=text, verdict="changed", title=text)]
    side = Side(name=text, commit="a" * 40, is_clean=False)
    return review_of(
        changes, [gate(text, passed=False, rule=text, why=text)], base=side, head=side, headline=text,
        headline_title=text, shown=text, notes=(text,),
    )  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_of_a_review_becomes_markup(text):
    found, expected = (page_of(full_review(one), {"curves": b"1"}) for one in (text, "harmless"))
    assert [tag for tag, _ in found.elements] == [tag for tag, _ in expected.elements]
    assert [sorted(each) for _, each in found.elements] == [sorted(each) for _, each in expected.elements]
    for _, each in found.elements:
        assert each.get("src", "data:").startswith("data:")
        assert each.get("href", "#").startswith("#")
    shown = re.sub(r"[\x00-\x1f\u202e]", "\N{REPLACEMENT CHARACTER}", text)
    assert found.text().count(shown) == expected.text().count("harmless") > 20


def test_the_verdict_is_in_the_title_and_in_the_heading():
    failed = html_page(review_of([change()], [gate("floor"), gate("no loss", passed=False)]), {})
    assert "<title>✗ 1 of 2 gates failed: no loss: feature/x against main</title>" in failed
    assert '<h1 class="failed">✗ 1 of 2 gates failed: no loss</h1>' in failed
    assert '<h1 class="passed">✓ all 2 gates passed</h1>' in html_page(review_of([change()], [gate(), gate()]), {})
    without = html_page(review_of([change()]), {})
    assert '<h1 class="without gates">no gates' in without
    assert "nothing was demanded" in without


def test_a_gate_that_was_not_judged_is_not_shown_as_passed():
    unjudged = gate("speed").model_copy(update={"judged": False})
    text = html_page(review_of([change(verdict="other test set")], [gate(), unjudged]), {})
    assert '<td class="verdict is-passed">✓ passed</td><td>floor</td>' in text
    assert '<td class="verdict is-not-judged">? not judged</td><td>speed</td>' in text
    assert "speed not judged (other test set)" in text


def test_the_sentence_where_nothing_matters_is_that_of_the_comment():
    review = review_of([change(verdict="changed"), change("data", "new", base=None)])
    (said,) = [data for _, data in page_of(review).texts if data.startswith("No score")]
    assert said in comment(review, {})
    assert said.endswith("the rest: 1 changed, 1 new.")


def test_a_name_turns_no_number_around():
    text = html_page(review_of([change(title="\u202eevil\u2067"), change(artifact="אב", verdict="better")]), {})
    assert not re.search("[\u202e\u2067]", text)
    assert "<bdi>אב mAP50-95</bdi> 0.800 → 0.700" in text


def test_every_row_is_there_once_with_its_verdict_in_words():
    changes = [
        change(kind, verdict=verdict, title=f"{kind} {verdict.value}", metric=f"{kind}_{verdict.value}",
               base=None if verdict == Verdict.NEW else 0.5, head=None if verdict == Verdict.GONE else 0.25)
        for kind in KINDS for verdict in Verdict
    ]  # fmt: skip
    found = page_of(review_of(changes))
    assert sorted(found.rows()) == sorted(row.verdict.value for row in changes)
    cells = [data for tag, data in found.texts if tag == "td"]
    for row in changes:
        assert cells.count(row.title) == 1
    for verdict in Verdict:
        assert sum(cell.endswith(f" {verdict.value}") and len(cell) == len(verdict.value) + 2 for cell in cells) == len(
            KINDS
        )
    headings = [data for tag, data in found.texts if tag == "h2"]
    assert [TITLES[kind] for kind in KINDS] == [title for title in headings if title in TITLES.values()]


def folded(text):
    return "".join(re.findall(r"<details>.*?</details>", text, re.DOTALL))


def test_what_says_nothing_is_folded_and_counted():
    changes = [change("class", verdict="unchanged", title=f"c{n}", head=0.8) for n in range(300)]
    changes += [change("class", verdict="worse", title="nine"), change("class", verdict="within noise", title="two")]
    text = html_page(review_of(changes), {})
    assert "301 more: 1 within noise, 300 unchanged" in text
    assert folded(text).count("<tr data-verdict") == 301
    assert "nine" not in folded(text)
    # A score within noise is what a reader looks for: it is not folded.
    scores = [change(verdict="within noise"), change(verdict="unchanged", title="Recall")]
    assert folded(html_page(review_of(scores), {})).count("<tr data-verdict") == 1


def test_the_worst_come_first():
    verdicts = ["new", "better", "within noise", "gone", "worse"]
    found = page_of(review_of([change(verdict=verdict) for verdict in verdicts]))
    assert found.rows() == ["worse", "gone", "better", "new", "within noise"]


def test_a_table_ends_somewhere_and_says_so(monkeypatch):
    monkeypatch.setattr(page, "MOST_ROWS", 10)
    found = page_of(review_of([change("slice", title=f"s{n}") for n in range(25)]))
    assert len(found.rows()) == 10
    assert "15 more rows are in review.json." in found.text()


def bars(text):
    """The places of every bar: rect x, width; ends of the interval."""
    found = []
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        rect = re.search(r'<rect x="([\d.]+)" y="4" width="([\d.]+)"', svg)
        ends = re.search(r'd="M([\d.]+) [\d.]+H([\d.]+)M', svg)
        found.append(([float(one) for one in rect.groups()], ends and [float(one) for one in ends.groups()]))
    return found


def test_bars_start_at_zero_and_intervals_are_on_the_same_scale():
    rows = [
        change(base=0.5, head=0.4, low=-0.2, high=-0.05),
        change(base=0.5, head=0.6, low=0.05, high=0.2, verdict="better"),
        change(base=0.5, head=0.5, verdict="changed"),
    ]
    (worse, better, none) = bars(html_page(review_of(rows), {}))
    # 160 wide, 0 at 80, and the largest end, 0.2, at 48 % of the width from it.
    assert worse == (pytest.approx([80 - 38.4, 38.4]), pytest.approx([80 - 76.8, 80 - 19.2]))
    assert better == (pytest.approx([80, 38.4]), pytest.approx([80 + 19.2, 80 + 76.8]))
    assert none == ([80, 0], None)


def test_a_device_has_bars_of_the_share_and_other_machines_none():
    rows = [
        change("device", metric="latency_ms_p50", base=10.0, head=15.0),
        change("device", metric="latency_ms_p50", base=10.0, head=9000.0, artifact="b"),
        change("device", metric="latency_ms_p50", base=10.0, head=15.0, verdict="other machine", artifact="c"),
        change("score", base=0.1, head=0.9, verdict="other test set"),
        change("params", base=1, head=2, verdict="changed"),
    ]
    text = html_page(review_of(rows), {})
    assert [rect for rect, _ in bars(text)] == [pytest.approx([80, 38.4]), pytest.approx([80, 76.8])]
    assert "±100% of the base" in text


def test_pictures_are_in_the_page_with_their_bytes():
    drawn = {"changed": b"\x89PNG1", "curves": b"\x89PNG2", "other": b"\x89PNG3"}
    images = page_of(review_of([]), drawn).of("img")
    assert [base64.b64decode(image["src"].partition(",")[2]) for image in images] == [
        b"\x89PNG2", b"\x89PNG1", b"\x89PNG3",
    ]  # fmt: skip
    assert all(image["alt"] for image in images)


def test_every_link_has_its_place():
    found = page_of(review_of([change(kind) for kind in KINDS], [gate()], notes=("n",)), {"curves": b"1"})
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"][1:] for attributes in found.of("a")]
    assert set(links) <= set(ids)
    assert set(KINDS) <= set(links)


def test_a_review_without_a_row_is_a_page():
    text = page_of(review_of([])).text()
    assert "Nothing differs by more than noise." in text


def test_the_same_review_gives_the_same_page():
    review = review_of([change(), change("class", title="nine")], [gate()])
    assert html_page(review, {"curves": b"1"}) == html_page(review, {"curves": b"1"})
