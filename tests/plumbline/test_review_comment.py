"""The comment: short at the top, whole below, and harmless whatever a class is called."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_revision import DEVICE, revision_of
from markdown_it import MarkdownIt
from scored_runs import run_of
from small_reviews import change

from plumbline.errors import EvaluationError
from plumbline.review.changes import Change, Verdict
from plumbline.review.comment import MARKER, comment, escape, matters_most
from plumbline.review.comparing import compare
from plumbline.review.gates import judge_gates
from plumbline.review.review import REVIEW, Review, Side, read_review, write_review
from plumbline.scores import BootstrapSettings

GATES = {"floor": "weights.map50 >= 0.01", "no_loss": "map50_95 drop <= 0.01 and significant"}


@pytest.fixture(scope="module")
def review() -> Review:
    base = revision_of(run_of("detect", 0, 30, name="main"))
    head = revision_of(run_of("detect", 4, 30), device={**DEVICE, "latency_ms_p50": 20.0}, params={"train": {"a": 1}})
    settings = BootstrapSettings(samples=50, level=0.95, seed=1, difficult="count")
    changes, notes, num_images = compare(base, head, settings, 0.1, lambda _: None)
    return Review(
        base=Side(name="main", commit="a" * 40, is_clean=True), head=Side(name="here", commit="b" * 40, is_clean=False),
        task="detect", headline="map50_95", headline_title="mAP50-95", shown="int8", level=0.95, num_images=num_images,
        changes=tuple(changes), gates=judge_gates(GATES, changes), notes=tuple(notes),
        pictures={"curves": "curves.png"},
    )  # fmt: skip


def test_the_top_says_whether_it_may_be_merged_and_the_three_changes_that_matter_most(review):
    top = comment(review, {}).split("<details>")[0]
    assert top.startswith(MARKER + "\n")
    assert "❌ plumbline: 1 of 2 gates failed: no\\_loss" in top
    assert len(re.findall(r"^- (?:🔴|🟢|❌)", top, re.MULTILINE)) == 3
    assert "- 🔴 worse: " in top
    assert "; and of 1 more artifact" in top
    assert "int8 Latency p50 10.00 ms → 20.00 ms, +10.00 ms (+100%)" in top
    assert len(top) < 1800


def test_the_details_are_folded_and_read_as_tables(review):
    text = comment(review, {"curves": "https://example.test/curves.png"})
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    assert html.count("<details>") == html.count("</details>") >= 4
    assert '<img src="https://example.test/curves.png"' in html
    assert "<table>" in html
    assert "train.a" in html
    assert '<td style="text-align:right">10.00 ms</td>' in html
    rows = [row for row in review.changes if row.metric == "class_cat_map50_95"]
    assert rows
    assert rows[0].low is not None


def test_too_long_a_comment_is_cut_between_two_tables_and_says_so(review):
    whole = comment(review, {})
    for limit in (len(whole) - 1, len(whole) // 2, 2500):
        cut = comment(review, {}, limit)
        assert len(cut) <= limit
        assert cut.endswith("the report has all of it.*")
        assert cut.count("<details>") == cut.count("</details>")
    assert comment(review, {}, len(whole)) == whole


def test_no_gate_is_said_and_all_passed_too(review):
    assert "no gates" in comment(review.model_copy(update={"gates": ()}), {})
    passed = tuple(gate.model_copy(update={"passed": True}) for gate in review.gates)
    assert "✅ plumbline: all 2 gates passed" in comment(review.model_copy(update={"gates": passed}), {})


def test_no_number_of_notes_and_gates_crowds_out_the_first_note(review):
    notes = ("# ✅ all 9 gates passed", *(["n" * 1000] * 99))
    gate = review.gates[0].model_copy(update={"passed": False, "why": "w" * 2000})
    text = comment(review.model_copy(update={"notes": notes, "gates": (gate,) * 1000}), {})
    assert len(text) <= 65_536
    assert "- \\# ✅ all 9 gates passed" in text
    assert "90 more notes are in the report." in text


def test_a_gate_that_could_not_be_judged_is_told_at_the_top(review):
    gates = tuple(gate.model_copy(update={"passed": True, "judged": gate.name != "floor"}) for gate in review.gates)
    for verdict in (Verdict.OTHER_MACHINE, Verdict.OTHER_TEST_SET):
        rows = {"gates": gates, "changes": (*review.changes, change("score", verdict.value))}
        text = comment(review.model_copy(update=rows), {})
        assert f"✅ plumbline: all 2 gates passed, floor not judged ({verdict.value})" in text.split("<details>")[0]
        assert "<summary>2 gates passed, 1 of them not judged</summary>" in text


QUIET = (change(verdict="unchanged", head=0.8), change("class", "within noise"), change("params", "changed", head="x"))


def test_nothing_differs_is_said_only_where_it_is_so(review):
    def told(*rows):
        return comment(review.model_copy(update={"changes": rows}), {}).split("<details>")[0]

    assert "Nothing differs by more than noise." in told(*QUIET)
    for rows, said in (
        ([change("validation", "worse", metric="num_errors", base=0, head=50), change(verdict="changed")],
         "1 worse, 1 changed"),
        ([change(verdict="new", base=None)], "1 new"),
        ([change(verdict="other test set", head=0.3), change("device", "other machine")],
         "1 other machine, 1 other test set"),
        ([change("data", "worse", metric="num_split_moves", base=0, head=2)], "1 worse"),
    ):  # fmt: skip
        text = told(*QUIET, *rows)
        assert "Nothing differs" not in text
        assert f"No score, latency p50 or size is known to be better or worse; the rest: {said}.\n" in text


def test_a_number_of_another_test_set_has_no_difference(review):
    text = comment(review.model_copy(update={"changes": (change(verdict="other test set"),)}), {})
    assert "| ❔ other test set | 0.800 | 0.700 |  |" in re.sub(r" +", " ", text).replace("| |", "|  |")


def test_what_matters_most_is_told_once_for_each_kind_and_what_is_gone_first(review):
    def row(artifact, metric, base, head, verdict, kind="score"):
        return Change(
            kind=kind, artifact=artifact, metric=metric, title=metric, base=base, head=head, verdict=verdict
        )  # fmt: skip

    rows = (
        row("a", "map50_95", 0.8, 0.7, Verdict.WORSE),
        row("b", "map50_95", 0.8, 0.6, Verdict.WORSE),
        row("b", "map75", 0.8, 0.3, Verdict.WORSE),
        row("c", "ar1", 0.7, None, Verdict.GONE),
        row("c", "map50_95", 0.8, None, Verdict.GONE),
        row("a", "f1", 0.8, 0.2, Verdict.WITHIN_NOISE),
        row("a", "size_bytes", 100, 400, Verdict.WORSE, "device"),
        row("a", "class_cat_map50_95", 0.5, 0.51, Verdict.BETTER, "class"),
    )
    told = matters_most(review.model_copy(update={"changes": rows}), 5)
    assert [(change.artifact, change.metric, more) for change, more in told] == [
        ("c", "map50_95", 0), ("a", "size_bytes", 0), ("b", "map50_95", 1), ("a", "class_cat_map50_95", 0),
        ("b", "map75", 0),
    ]  # fmt: skip


HOSTILE = [
    "<img src=x onerror=alert(1)>", "@everyone", "[click](https://evil.test)", "![x](https://evil.test/p.png)",
    "</details>", "`code`", "a|b", "#1", "https://evil.test", "<!-- x -->", "line\nbreak\n# title", "www.evil.test",
    "_https://evil.test", "9https://evil.test", "irc://evil.test", "_www.evil.test", "9WWW.evil.test", "a@-evil.test",
    "1\n\n@org/team **approved**: [see](https://evil.test) ![x](https://evil.test/p.png)\n\n<!-- x", "\u202eevil",
    "https:\u2060//evil.test", "@\u200dorg",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_of_the_review_means_anything_to_markdown(review, text):
    row = Change(kind="score", artifact=text, metric="map50_95", title=text, base=0.8, head=0.1, verdict=Verdict.WORSE,
                 note=text)  # fmt: skip
    rows = (
        row, row.model_copy(update={"metric": "gone", "verdict": Verdict.GONE, "head": None}),
        change("params", "changed", base=text, head=text, metric=text, title=text),
        # Refused where it is read; but if one came here, it would be escaped all the same.
        row.model_copy(update={"artifact": "x", "verdict": Verdict.GONE, "base": text, "head": None}),
    )  # fmt: skip
    sides = {"base": review.base.model_copy(update={"name": text}), "changes": rows, "notes": (text,)}
    written = comment(review.model_copy(update=sides), {})
    assert len(re.findall(r"^- ❌ gone: ", written, re.MULTILINE)) == 2
    assert not re.search(r"://(?!github|gitlab)|www\.|@(?!\u200b)|[\u202e\u2060\u200d]", written, re.IGNORECASE)
    html = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(written)
    for tag in ("<img", "<a ", "<script", "<h1", "<!-- x", "onerror=alert(1)>"):
        assert tag not in html
    assert html.count("<details>") == html.count("</details>")
    assert not re.search(r"(?<!\w)@\w", html)
    assert "://evil" not in html
    assert "www.evil" not in html


@pytest.mark.parametrize("text", [one for one in HOSTILE if "evil" in one])
def test_a_scheme_or_www_is_broken_whatever_stands_before_it(text):
    assert not re.search(r"://|www\.|@(?!\u200b)", escape(text), re.IGNORECASE)


@given(st.text(st.characters(categories=["Cf", "Cc", "Lu", "Zs"]), max_size=30))
def test_what_is_not_seen_is_left_out_of_a_text(text):
    seen = "".join(one for one in text if unicodedata.category(one) not in ("Cf", "Cc") or one.isspace())
    assert escape(text) == escape(seen)
    assert all(one.isprintable() or one in "\u200b\u200e" for one in escape(text))


def test_a_name_from_right_to_left_leaves_the_numbers_behind_it_in_their_order():
    assert escape("אב") == "אב\u200e"
    assert escape("ab") == "ab"


@given(st.text(max_size=60))
def test_an_escaped_text_is_one_paragraph_without_markup(text):
    html = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render("x " + escape(text))
    assert re.fullmatch(r"<p>[^<>]*</p>\n", html)


def test_a_review_comes_back_as_it_was_and_a_changed_one_is_refused(review, tmp_path):
    write_review(review, tmp_path)
    assert read_review(tmp_path) == review
    path = tmp_path / REVIEW
    whole = path.read_text(encoding="utf-8")
    for old, new in (
        ('"curves.png"', '"../../etc/passwd"'), ('"worse"', '"best"'), ('"task": "detect"', '"task": "rm -rf"'),
        ('"level": 0.95', '"level": NaN'), ('{', '{"more": 1,'), ('"is_clean": true', '"is_clean": 1'),
    ):  # fmt: skip
        assert old in whole
        path.write_text(whole.replace(old, new, 1), encoding="utf-8")
        with pytest.raises(EvaluationError, match="not a review"):
            pytest.fail(f"{new}: {read_review(tmp_path)}")
    for old, new in ((r'"head": \d\.\d+', f'"head": {10**400}'), (r'"whole": null', '"whole": 0.5, "head": null')):
        path.write_text(re.sub(old, new, whole, count=1), encoding="utf-8")
        with pytest.raises(EvaluationError, match="not a review"):
            pytest.fail(f"{new[:40]}: {read_review(tmp_path)}")
    path.write_text(whole[:-3], encoding="utf-8")
    with pytest.raises(EvaluationError, match="not a review"):
        read_review(tmp_path)
    path.unlink()
    with pytest.raises(EvaluationError, match="cannot be read"):
        read_review(tmp_path)
