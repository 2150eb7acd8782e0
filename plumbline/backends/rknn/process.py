"""RKNN's toolkit from outside: its worker is a process of its own, and whatever goes wrong in it ends there."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from plumbline.backends.rknn import toolchain as toolchains
from plumbline.backends.rknn import worker
from plumbline.errors import BackendError

TOOLCHAIN, PACKAGE = "rknn", "rknn-toolkit2"
LOG = "log.txt"
LAST_LINES = 5
# A network of this project takes half a minute; a method that searches may take an hour.
TIMEOUT_SECONDS = 3 * 3600
# What a worker gets of this process' environment: the rest (PYTHONPATH...) is meant for another Python.
KEPT = ("PATH", "LD_LIBRARY_PATH", "LANG")
# Lines that only tell what is going on, progress bars, and complaints that mean nothing.
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_CHATTER = re.compile(
    r"^(I |D |W )|\d+%\||Unkown op target|changed from '|Please take care|pkg_resources|RKNNBase\(|^During handling"
    r"|^[\^~]+$|^[DEIW]$"
)
# A row of the table that the compiler prints of what it has built.
_ROW = re.compile(
    r"^D RKNN: \[[\d:.]+\] \d+ +(?P<operator>\S+) +(?P<data_type>\w+) +(?P<target>CPU|NPU|GPU) .* (?P<name>\w+:\S+) *$"
)
PRODUCTS = re.compile(r"^(Conv|ConvTranspose|Gemm|MatMul|exMatMul|exSDPAttention|exGemm)")


@dataclass(frozen=True)
class Operator:
    """One operator as the compiler has built it.

    Attributes:
        kind: ``Conv``, ``exSDPAttention``...
        name: As in the network: ``/body.0/conv/Conv``.
        data_type: Of its arithmetic: ``INT8``, ``FLOAT16``...
        target: ``NPU``, ``CPU`` or ``GPU``.
    """

    kind: str
    name: str
    data_type: str
    target: str

    @property
    def is_product(self) -> bool:
        """Whether it is a convolution or a matrix product."""
        return PRODUCTS.match(self.kind) is not None

    @property
    def is_port(self) -> bool:
        """Whether it only hands a tensor in or out."""
        return self.kind in {"InputOperator", "OutputOperator"}


def run_worker(command: str, folder: Path, what: str, makes: Sequence[str], **job: Any) -> str:
    """Run one job to its end.

    Args:
        command: Of the worker: ``calibrate`` or ``convert``.
        folder: The working folder: what it reads is there, and what it writes.
        what: What is converted, as a message names it.
        makes: Names of the files that it leaves there.
        job: What else the job says.

    Returns:
        Everything that it printed.

    Raises:
        BackendError: The toolchain is not there, or the process failed; its last lines are in the message.
    """
    with tempfile.TemporaryDirectory(prefix="rknn-") as home, (Path(home) / LOG).open("wb") as log:
        try:
            done = subprocess.run(
                _arguments(command, job),
                cwd=folder,
                env=_environment(home, 1),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise BackendError(
                f"{what}: {PACKAGE} has not ended its step {command!r} within {TIMEOUT_SECONDS} s; {_ADVICE}"
            ) from error
        text = _text(Path(home) / LOG)
    # The compiler may end its process as if all were well.
    if done.returncode or not all((folder / name).is_file() for name in makes):
        ending = _ending(done.returncode, text)
        raise BackendError(f"{what}: {PACKAGE} failed at its step {command!r} {ending}; {_ADVICE}")
    return text


_ADVICE = "take the target out of params.yaml, or take another network"


class Simulator:
    """A worker that answers input tensors with raw outputs, until this object is gone.

    Not safe for use from several threads at once.

    Args:
        source: Folder with what the network is rebuilt from; it is only read.
        num_outputs: Of the network.
        threads: Of the simulator's arithmetic.
        job: What the job says.

    Raises:
        BackendError: The toolchain is not there, or the process failed.
    """

    def __init__(self, source: Path, num_outputs: int, threads: int, job: dict[str, Any]) -> None:
        arguments = _arguments("serve", job)
        self._what, self._num_outputs = source.parent, num_outputs
        home = Path(tempfile.mkdtemp(prefix="rknn-"))
        self._log = home / LOG
        try:
            shutil.copytree(source, home / "network")
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    arguments,
                    cwd=home / "network",
                    env=_environment(str(home), threads),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                )
        except BaseException:
            shutil.rmtree(home, ignore_errors=True)
            raise
        self.close = weakref.finalize(self, _end, self._process, home)
        if self._header() != 0:
            raise self._failure()

    def __call__(self, tensor: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
        """Run the network on one input tensor, shape (1, 3, H, W)."""
        assert self._process.stdin
        assert self._process.stdout
        if not self.close.alive:
            raise BackendError(f"{self._what}: this session was closed; open the artifact again")
        try:
            worker.write_array(self._process.stdin, tensor)  # type: ignore[arg-type]
            self._process.stdin.flush()
        except OSError as error:
            raise self._failure() from error
        outputs = [worker.read_array(self._process.stdout) for _ in range(self._num_outputs)]  # type: ignore[arg-type]
        if any(output is None for output in outputs):
            raise self._failure()
        return outputs

    def _header(self) -> int:
        assert self._process.stdout
        header = self._process.stdout.read(worker.LENGTH.size)
        return int.from_bytes(header, "little") if len(header) == worker.LENGTH.size else -1

    def _failure(self) -> BackendError:
        """End what is left of the process, and say how it died."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_PATIENCE_SECONDS)
        code, text = self._process.returncode, _text(self._log)
        self.close()
        ending = _ending(code, text) if code is not None else "(its answer is damaged)"
        return BackendError(f"{self._what}: the simulator of {PACKAGE} died {ending}; export the artifact again")


_PATIENCE_SECONDS = 5


def _end(process: subprocess.Popen[bytes], home: Path) -> None:
    """End a worker: it does so by itself where its input ends, and is killed where it does not."""
    assert process.stdin
    assert process.stdout
    with contextlib.suppress(OSError):
        process.stdin.close()
    process.terminate()
    try:
        process.wait(_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
    shutil.rmtree(home, ignore_errors=True)


def _arguments(command: str, job: dict[str, Any]) -> list[str]:
    python = toolchains.python_of(TOOLCHAIN)
    whole = {**job, "command": command, "version": toolchains.version_of(TOOLCHAIN, PACKAGE)}
    # -P: the worker's own folder has an onnx.py that is not the package.
    return [str(python), "-P", "-s", str(Path(worker.__file__).resolve()), json.dumps(whole)]


def _environment(home: str, threads: int) -> dict[str, str]:
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    return {
        **kept,
        "HOME": home,
        "TMPDIR": home,
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        # glibc then hands out zeros: the compiler writes memory that it has never set into its file.
        "MALLOC_PERTURB_": "255",
    }


def _text(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""


def _ending(code: int, text: str) -> str:
    r"""Say how a process ended.

    >>> _ending(-11, "I rknn building ...\r 10%|# | 1/9\n\x1b[31mE build: bad\x1b[0m\n")
    '(signal 11): E build: bad'
    """
    reason = f"signal {-code}" if code < 0 else f"exit code {code}"
    last = last_lines(text)
    return f"({reason}): {' | '.join(last)}" if last else f"({reason}, without a word)"


def last_lines(text: str) -> list[str]:
    """Return the last lines that say something, without colours and progress bars."""
    lines = [line.strip() for line in _COLOUR.sub("", text).replace("\r", "\n").splitlines() if line.strip()]
    telling = [line for line in lines if not _CHATTER.search(line)]
    return list(dict.fromkeys(telling))[-LAST_LINES:]


def operators_of(text: str, what: str) -> list[Operator]:
    """Read the table of operators that the compiler prints.

    Raises:
        BackendError: There is none.
    """
    found = []
    for line in _COLOUR.sub("", text).splitlines():
        row = _ROW.match(line)
        if row:
            kind, _, name = row["name"].partition(":")
            found.append(Operator(kind, name, row["data_type"], row["target"]))
    if not any(operator.is_product for operator in found):
        raise BackendError(
            f"{what}: {PACKAGE} printed no table of operators, so that none can be counted; report this as a bug"
        )
    return found


def in_float(products: Sequence[str], operators: Sequence[Operator]) -> list[str]:
    """Return those of a network's convolutions and matrix products that the compiler has not built in int8.

    It puts something behind a name where it fuses or rewrites an operator, and has products of its own (a pooling as a
    convolution), which do not count. One that cannot be found is taken for one in float.

    Args:
        products: Names, as in the network.
        operators: As built.

    >>> built = [Operator("Conv", "/a/Conv_ConvAdd", "INT8", "NPU"), Operator("Conv", "/b/Conv", "FLOAT16", "NPU")]
    >>> in_float(["/a/Conv", "/b/Conv"], built)
    ['/b/Conv']
    """
    types = {operator.name: operator.data_type for operator in operators if operator.is_product}
    built = {name: min((one for one in types if one.startswith(name)), key=len, default="") for name in products}
    return [name for name in products if types.get(built[name]) != "INT8"]
