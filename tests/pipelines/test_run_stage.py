"""One stage through DVC: lines as they come, its outcome, its failure, the end of all it started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.process_group import end_group, group_lives
from pipelines.run_stage import Outcome, StageError, lines_of, run_stage


def test_a_stage_runs_with_this_interpreter_and_its_lines_come_in_order(project):
    lines: list[str] = []

    assert run_stage(project.root, "prepare", lines.append) is Outcome.RAN
    assert f"prepared by {sys.executable}" in lines
    assert lines[0] == "Running stage 'prepare':"
    assert (project.root / "prepared.txt").read_text() == "p"


def test_stdout_and_stderr_are_one_stream(empty_project):
    empty_project.write(dvc_yaml="stages: {both: {cmd: 'echo one; echo two >&2; echo three'}}")
    lines: list[str] = []

    run_stage(empty_project.root, "both", lines.append)

    assert [line for line in lines if line in ("one", "two", "three")] == ["one", "two", "three"]


def test_an_unchanged_stage_is_cached(project):
    run_stage(project.root, "prepare", print)

    assert run_stage(project.root, "prepare", print) is Outcome.UNCHANGED


def test_outputs_out_of_the_run_cache_are_cached(project):
    run_stage(project.root, "prepare", print)
    (project.root / "prepared.txt").unlink()
    (project.root / "dvc.lock").unlink()
    lines: list[str] = []

    assert run_stage(project.root, "prepare", lines.append) is Outcome.CACHED
    assert (project.root / "prepared.txt").is_file()
    assert not any("prepared by" in line for line in lines)


def test_dvcs_advice_is_no_output_of_a_stage(empty_project):
    subprocess.run(["git", "init", "--quiet"], cwd=empty_project.root, check=True)  # it advises on git too
    (empty_project.root / ".dvc" / "config").write_text("")
    empty_project.write(dvc_yaml="stages: {a: {cmd: echo a > a.txt, outs: [a.txt]}}")
    lines: list[str] = []

    run_stage(empty_project.root, "a", lines.append)

    assert lines[:2] == ["Running stage 'a':", "> echo a > a.txt"]
    assert [line for line in lines[2:] if "lock file 'dvc.lock'" not in line] == []


def test_a_stage_does_not_see_the_login_of_the_repository(empty_project, monkeypatch):
    monkeypatch.setenv("PLUMBLINE_REPOSITORY", "https://me:secret@example.com/a.git")
    empty_project.write(dvc_yaml="stages: {a: {cmd: env}}")
    lines: list[str] = []

    run_stage(empty_project.root, "a", lines.append)

    assert any(line.startswith("PATH=") for line in lines)
    assert not any("secret" in line for line in lines)


def test_a_stage_that_speaks_of_another_is_not_cached(empty_project):
    empty_project.write(dvc_yaml="""stages: {a: {cmd: "echo \\"Stage 'b' didn't change, skipping\\""}}""")

    assert run_stage(empty_project.root, "a", print) is Outcome.RAN


def test_a_failed_stage_is_named_with_its_own_last_word(project):
    project.write(switch_txt="off: no good\n")
    run_stage(project.root, "prepare", print)

    with pytest.raises(StageError, match=r"^stage 'fragile' failed: off: no good$") as caught:
        run_stage(project.root, "fragile", print)
    assert caught.value.tail[0] == "Running stage 'fragile':"
    assert "exited with 1" in caught.value.tail[-1]
    assert not (project.root / "fragile.txt").is_file() or "fragile" not in (project.root / "dvc.lock").read_text()


def test_a_stage_that_fails_without_a_word_is_told_in_dvcs(empty_project):
    empty_project.write(dvc_yaml="stages: {mute: {cmd: exit 3}}")

    with pytest.raises(StageError, match=r"^stage 'mute' failed: ERROR: .* exit 3, exited with 3$"):
        run_stage(empty_project.root, "mute", print)


def test_a_stage_that_is_not_there_says_so(project):
    with pytest.raises(StageError, match=r"stage 'nowhere' failed: .*'nowhere' not found"):
        run_stage(project.root, "nowhere", print)


def test_an_interrupt_ends_the_whole_group(empty_project):
    # The inner sleep ignores SIGINT, as every background job of a shell does.
    empty_project.write(dvc_yaml="stages: {long: {cmd: 'sleep 600 & echo child $!; wait'}}")
    children: list[int] = []

    def interrupt(line: str) -> None:
        if line.startswith("child "):
            children.append(int(line.split()[1]))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage(empty_project.root, "long", interrupt)

    assert not runs(children[0])


def test_a_process_that_refuses_to_end_is_killed():
    stubborn = (
        "import signal, time\n"
        "for name in (signal.SIGINT, signal.SIGTERM): signal.signal(name, signal.SIG_IGN)\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    with process.stdout:
        process.stdout.readline()
        assert group_lives(process.pid)

        end_group(process, [(signal.SIGINT, 0.1), (signal.SIGTERM, 0.1), (signal.SIGKILL, 5.0)])

    assert process.returncode == -9
    assert not group_lives(process.pid)


def test_what_a_stage_leaves_behind_is_not_waited_for_and_is_ended(empty_project):
    # It holds the output open: reading to its end would wait for ten minutes.
    empty_project.write(dvc_yaml="stages: {leaves: {cmd: 'sleep 600 & echo child $!'}}")
    lines: list[str] = []

    assert run_stage(empty_project.root, "leaves", lines.append) is Outcome.RAN
    (child,) = (int(line.split()[1]) for line in lines if line.startswith("child "))
    assert not runs(child)


def test_progress_is_told_now_and_then_and_its_end_always():
    seconds = iter(range(100))
    chunks = [f"\r{percent:3d}%".encode() for percent in range(12)]

    told = list(lines_of([*chunks, b"\n", b"next\n"], now=lambda: float(next(seconds))))

    assert told == ["  0%", "  5%", " 10%", " 11%", "next"]


def test_a_line_drawn_once_is_told_once():
    assert list(lines_of([b"done\r", b"\n"])) == ["done"]


def test_the_same_line_twice_is_told_twice():
    assert list(lines_of([b"same\nsame\n"])) == ["same", "same"]


def test_colours_go_and_bytes_that_are_no_text_stay_visible():
    assert list(lines_of([b"\x1b[1;31mred\x1b[0m\x1b[K \xff\n"])) == ["red \N{REPLACEMENT CHARACTER}"]


@given(st.lists(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1)), st.data())
def test_lines_do_not_depend_on_where_the_stream_is_cut(lines, data):
    stream = "".join(f"{line}\n" for line in lines).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    chunks = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

    assert list(lines_of(chunks)) == lines


def runs(pid: int) -> bool:
    """Whether a process runs; the dead that nobody has waited for do not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.is_file() or stat.read_text().rpartition(")")[2].split()[0] not in "ZX"
