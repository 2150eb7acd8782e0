"""The parts of the poster that have rules of their own: waiting, pictures of a stranger, forks, the runner's words."""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from forge_jobs import set_environment
from forge_report_folder import GATES, HEAD, made_up_review, write_folder
from forge_server import REPOSITORY, TOKEN, Forge, forge_server

from pipelines import forge_github
from pipelines.forge import Address, connect
from pipelines.forge_answers import Answer, ForgeError, Patience, pause_before_next
from pipelines.forge_pictures import MOST_BYTES, read_pictures
from pipelines.forge_report import read_report
from pipelines.forge_runner import runner
from pipelines.pr_comment import main
from plumbline.errors import EvaluationError


@pytest.fixture
def server() -> Iterator[Forge]:
    with forge_server() as forge:
        yield forge


@pytest.fixture
def schedule(server: Forge, monkeypatch: pytest.MonkeyPatch) -> Forge:
    """The environment of the parent project's scheduled pipeline."""
    values = {"GITLAB_CI": "true", "CI_API_V4_URL": f"{server.url}/api/v4", "CI_PROJECT_ID": "7", "GITLAB_TOKEN": TOKEN}
    set_environment(monkeypatch, values)
    return server


LIMITS = [
    (Answer(503, ""), 1.0, 1.0),
    (Answer(503, "", {"retry-after": "9"}), 1.0, 9.0),
    (Answer(None, "ReadTimeout"), 4.0, 4.0),
    (Answer(403, "Resource not accessible by integration"), 1.0, None),
    (Answer(403, "", {"retry-after": "30"}), 1.0, 30.0),
    (Answer(403, "You have exceeded a secondary rate limit"), 1.0, 60.0),
    (Answer(403, "", {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1010"}), 1.0, 11.0),
    (Answer(403, "", {"x-ratelimit-remaining": "17", "x-ratelimit-reset": "1010"}), 1.0, None),
    (Answer(429, "", {"ratelimit-remaining": "0", "ratelimit-reset": "1005"}), 1.0, 6.0),
    (Answer(429, "", {"retry-after": "1000"}), 1.0, None),
    (Answer(429, "", {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}), 1.0, 60.0),
    (Answer(422, ""), 1.0, None),
]


@pytest.mark.parametrize(("answer", "pause_s", "expected"), LIMITS)
def test_how_long_an_answer_is_waited_for(answer: Answer, pause_s: float, expected: float | None) -> None:
    assert pause_before_next(answer, pause_s, Patience(longest_wait_s=120), now=1000) == expected


def _png(width: int, height: int, data: bytes = b"") -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


BAD_PICTURES = {
    "a page": b"<script>alert(1)</script>" * 9,
    "empty": b"",
    "large": b"\x89PNG\r\n\x1a\n" + b"x" * MOST_BYTES,
    "a bomb": _png(60_000, 60_000),
    "no pixels": _png(0, 10),
    "cut short": _png(40, 40, b"\0" * 50)[:40],
    "a JPEG": cv2.imencode(".jpg", np.zeros((9, 9, 3), np.uint8))[1].tobytes(),
}


@pytest.mark.parametrize("case", BAD_PICTURES)
def test_a_picture_that_is_none_is_left_out_and_the_comment_says_so(tmp_path: Path, case: str) -> None:
    folder = write_folder(tmp_path / "report")
    (folder / "curves.png").write_bytes(BAD_PICTURES[case])
    with pytest.raises(EvaluationError, match=r"curves\.png"):
        read_pictures(folder, {"curves": "curves.png"})
    report = read_report(folder, None)
    assert not report.pictures
    text = report.markdown({}, "github")
    assert "No pictures: curves.png" in text
    assert str(tmp_path) not in text


def test_a_link_is_no_picture_and_no_review(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "report")
    (folder / "curves.png").rename(tmp_path / "elsewhere.png")
    (folder / "curves.png").symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(EvaluationError, match="no file"):
        read_pictures(folder, {"curves": "curves.png"})
    (folder / "review.json").rename(tmp_path / "review.json")
    (folder / "review.json").symlink_to(tmp_path / "review.json")
    with pytest.raises(EvaluationError, match="no file"):
        read_report(folder, None)


def test_of_a_picture_its_pixels_alone_are_kept(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    png = cv2.imencode(".png", pixels)[1].tobytes()
    text = b"tEXtComment\0" + b"a payload"
    hidden = png[:33] + struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text)) + png[33:]
    (tmp_path / "a.png").write_bytes(hidden + b"<script>")
    made = read_pictures(tmp_path, {"a": "a.png"})["a"]
    assert np.array_equal(cv2.imdecode(np.frombuffer(made, np.uint8), cv2.IMREAD_COLOR), pixels)
    assert b"payload" not in made
    assert b"script" not in made


def test_posters_at_once_lose_no_picture(server: Forge) -> None:
    address = Address("github", server.url, server.url, REPOSITORY, TOKEN)
    faults: list[Exception] = []

    def upload(number: int) -> None:
        try:
            client = connect(address, Patience(pauses_s=())).client
            forge_github.upload_pictures(client, number, {"curves": bytes([number]) * 30}, "")
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=upload, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    files = server.pictures(server.refs["refs/heads/plumbline-pictures"])
    assert files == {f"pull-{number}/curves.png": bytes([number]) * 30 for number in range(1, 5)}


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_reports_of_all_merge_requests_are_posted_from_a_schedule(
    schedule: Forge, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    schedule.files["main", "params.yaml"] = GATES.encode()
    schedule.files["release", "params.yaml"] = b"gates:\n  strict: weights.map50_95 >= 0.99\n"
    shas = {number: f"{number:x}" * 40 for number in range(1, 9)}
    for number, sha in shas.items():
        schedule.add_pull(number, sha, from_fork=number < 6, base="release" if number == 7 else "main")
    worse = made_up_review(head=shas[1], after=0.5, passed=True)
    schedule.add_report(1, _files(write_folder(tmp_path / "1", worse)), status="success")
    schedule.add_report(2, _files(write_folder(tmp_path / "2", made_up_review(head=HEAD))))  # of another commit
    schedule.add_report(3, {"review.json": b'{"state": "passed"}'})
    schedule.add_report(4, _files(write_folder(tmp_path / "4", made_up_review(head=shas[4]))))
    schedule.pulls[4]["sha"] = "9" * 40  # a commit has come since
    schedule.add_report(6, _files(write_folder(tmp_path / "6", made_up_review(head=shas[6]))))
    schedule.add_report(7, _files(write_folder(tmp_path / "7", made_up_review(head=shas[7], base="base/release"))))
    merged = _files(write_folder(tmp_path / "8", made_up_review(head=shas[8])))
    schedule.add_report(8, merged, merged_sha="d" * 40)
    assert main(["--all", "--pauses", "0"]) == 0
    out = capfd.readouterr().out
    assert [number for number, comments in schedule.comments.items() if comments] == [1, 6, 7, 8]
    assert "2 of 2 gates failed" in schedule.comments[1][0]["body"]  # by the gates of the branch that it is to
    assert "FROM A FORK" in schedule.comments[1][0]["body"]
    assert "FROM A FORK" not in schedule.comments[6][0]["body"]
    assert "gates failed: strict" in schedule.comments[7][0]["body"]
    assert "!2: not posted: the report is of commit" in out
    assert "!3: not posted: " in out
    assert "not a review" in out
    assert "!4: no ended job" in out
    assert "!5: no ended job" in out
    told = {sha: [status["state"] for status in statuses] for sha, statuses in schedule.statuses.items()}
    # A fork's commit takes none.
    assert told == {shas[6]: ["success"], shas[7]: ["failed"], shas[8]: ["success"]}
    schedule.asked.clear()
    assert main(["--all", "--pauses", "0"]) == 0  # the next time
    assert not schedule.writes()


def test_the_schedule_takes_gates_of_a_file_where_it_is_said(schedule: Forge, tmp_path: Path) -> None:
    schedule.add_pull(1, HEAD)
    schedule.add_report(1, _files(write_folder(tmp_path / "1", made_up_review(after=0.5))))
    (tmp_path / "params.yaml").write_text(GATES)
    assert main(["--all", "--gates-from", str(tmp_path / "params.yaml"), "--pauses", "0"]) == 0
    assert "2 of 2 gates failed" in schedule.comments[1][0]["body"]


@pytest.mark.parametrize("place", ["reading", "posting"])
def test_whatever_one_report_makes_happen_the_others_are_posted(
    schedule: Forge, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    from pipelines import forge_schedule

    schedule.files["main", "params.yaml"] = GATES.encode()
    for number in (1, 2, 3):
        schedule.add_pull(number, f"{number}" * 40)
        review = made_up_review(head=f"{number}" * 40)
        schedule.add_report(number, _files(write_folder(tmp_path / f"{number}", review)))
    name = {"reading": "read_review", "posting": "post"}[place]
    work = getattr(forge_schedule, name)
    calls: list[object] = []

    def fail_once(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 2:
            raise OverflowError("int too large\n!9: comment created")
        return work(*arguments)

    monkeypatch.setattr(forge_schedule, name, fail_once)
    assert main(["--all", "--pauses", "0"]) == 0
    out = capfd.readouterr().out.splitlines()
    assert [len(comments) for comments in schedule.comments.values()] == [1, 0, 1]
    assert len(out) == 3
    assert out[1].startswith("!2: not posted: ")
    assert "OverflowError at test_forge.py:" in out[1]
    [status] = schedule.statuses["2" * 40]
    assert "no report that can be read" in status["description"]


HOSTILE = {
    "a long integer": ('"head":0.81', '"head":1' + "0" * 400),
    "a large integer": ('"num_images":100', '"num_images":1' + "0" * 400),
    "an infinity": ('"base":0.8', '"base":1e999'),
    "a number that is none": ('"base":0.8', '"base":NaN'),
    "a lone surrogate": ("It is made up.", r"\ud800"),
    "a nul": ("It is made up.", r"\u0000"),
    "deep": ('"changes":[', '"changes":' + "[" * 100_000),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_report_keeps_back_no_other(
    schedule: Forge, tmp_path: Path, capfd: pytest.CaptureFixture[str], case: str
) -> None:
    schedule.files["main", "params.yaml"] = GATES.encode()
    for number in (1, 2):
        schedule.add_pull(number, f"{number}" * 40)
        files = _files(write_folder(tmp_path / f"{number}", made_up_review(head=f"{number}" * 40)))
        if number == 1:
            text = made_up_review(head="1" * 40).model_dump_json()
            assert HOSTILE[case][0] in text
            files["review.json"] = text.replace(*HOSTILE[case]).encode()
        schedule.add_report(number, files)
    assert main(["--all", "--pauses", "0"]) == 0
    out = capfd.readouterr().out.splitlines()
    assert len(out) == 2
    assert out[1].startswith("!2: comment created")
    assert schedule.statuses["1" * 40]


def test_pictures_that_no_comment_shows_are_neither_read_nor_uploaded(schedule: Forge, tmp_path: Path) -> None:
    names = {"curves": "curves.png", "extra": "extra.png"}
    review = made_up_review().model_copy(update={"pictures": names})
    folder = write_folder(tmp_path / "report", review)
    assert set(read_report(folder, None).pictures) == {"curves"}
    schedule.files["main", "params.yaml"] = GATES.encode()
    schedule.add_pull(1, HEAD)
    schedule.add_report(1, _files(folder))
    assert main(["--all", "--pauses", "0"]) == 0
    assert not [one for one in schedule.asked if "extra" in one.path]
    assert [url.rpartition("/")[2].partition("-")[0] for url in schedule.uploads] == ["curves"]


def test_a_fork_that_cannot_be_read_keeps_back_no_other(
    schedule: Forge, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    schedule.files["main", "params.yaml"] = GATES.encode()
    for number in (1, 2):
        schedule.add_pull(number, f"{number}" * 40, from_fork=True)
        review = made_up_review(head=f"{number}" * 40)
        schedule.add_report(number, _files(write_folder(tmp_path / f"{number}", review)))
    schedule.fail("GET", r"/projects/8/pipelines/10[0-4]/", status=403, times=1)
    assert main(["--all", "--pauses", "0"]) == 1
    assert "whose jobs it may see" in capfd.readouterr().err
    assert [len(comments) for comments in schedule.comments.values()] == [0, 1]


def test_an_artifact_is_read_no_further_than_it_may_be(
    schedule: Forge, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    schedule.add_pull(1, HEAD, from_fork=True)
    files = _files(write_folder(tmp_path / "report"))
    schedule.add_report(1, {**files, "review.json": b" " * 20_000_001 + files["review.json"]})
    assert main(["--all", "--pauses", "0"]) == 0
    assert "more than 20,000,000 bytes" in capfd.readouterr().out
    assert not schedule.comments[1]


def test_a_schedule_is_for_gitlab(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--all", "--forge", "github", "--repository", "a/b"]) == 1
    assert "--all is for gitlab" in capfd.readouterr().err


def test_the_runner_says_where_it_is() -> None:
    found = runner({"GITHUB_ACTIONS": "true", "GITHUB_REPOSITORY": "a/b", "GITHUB_REF": "refs/heads/main"}, None, None)
    assert (found.forge, found.api_url, found.repository, found.number) == (
        "github", "https://api.github.com", "a/b", None,
    )  # fmt: skip
    values = {
        "GITLAB_CI": "true", "CI_SERVER_URL": "https://git.example.org", "CI_PROJECT_ID": "8",
        "CI_MERGE_REQUEST_PROJECT_ID": "7", "CI_MERGE_REQUEST_IID": "3",
    }  # fmt: skip
    found = runner(values, None, None)
    assert (found.api_url, found.repository, found.number) == ("https://git.example.org/api/v4", "7", 3)
    with pytest.raises(ForgeError, match="expected --forge github or gitlab"):
        runner({}, None, None)


def test_what_holds_a_token_does_not_show_it() -> None:
    address = Address("github", "https://api.github.com", "https://github.com", "a/b", TOKEN)
    connection = connect(address, Patience())
    assert TOKEN not in repr(address) + repr(connection) + str(connection)
