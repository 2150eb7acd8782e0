"""What stages share on a machine, and how much of it is left: cores by number, GPUs one by one."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipelines.graph import ALL, GraphError, Stage
from pipelines.machine import Machine, shared_machine


@dataclass(frozen=True)
class Grant:
    """What one stage has been given until it ends.

    Attributes:
        cpu: Cores.
        gpus: As CUDA_VISIBLE_DEVICES names them.
    """

    cpu: int
    gpus: tuple[str, ...]

    def environment(self) -> dict[str, str]:
        """Return what makes the stage see its own GPUs only; a stage that asked for none sees what there is."""
        return {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)} if self.gpus else {}


class Resources:
    """The cores and GPUs of this machine, of which each is given to one stage at a time.

    Args:
        cpu: Cores.
        gpus: As CUDA_VISIBLE_DEVICES names them.
        machine: Is had while something of it is given; None where nobody else wants it.
    """

    def __init__(self, cpu: int, gpus: Iterable[str], machine: Machine | None = None) -> None:
        self.cpu = self._free_cpu = cpu
        self.gpus = tuple(gpus)
        self._free_gpus = list(self.gpus)
        self._machine = machine
        self._num_given = 0

    def check(self, stages: Iterable[Stage]) -> None:
        """Refuse a stage that could never start here, before any has run.

        Raises:
            GraphError: It needs more of a resource than there is.
        """
        for stage in stages:
            for resource, there in (("cpu", self.cpu), ("gpu", len(self.gpus))):
                wanted = stage.resources.get(resource, 0)
                if not stage.pool and (wanted > there or (wanted == ALL and there == 0)):
                    raise GraphError(
                        f"dvc.yaml: stage {stage.name!r} needs {'all' if wanted == ALL else wanted} of {resource},"
                        f" this machine has {there} to give; change its meta or flow.limits in params.yaml, or give"
                        " it a pool"
                    )

    def take(self, needs: Mapping[str, int]) -> Grant | None:
        """Give what a stage needs, or None while others have it.

        Where no stage is under way, other runs on this machine are waited for: nobody else would ask again.
        """
        cpu = self._wanted(needs.get("cpu", 0), self.cpu)
        num_gpus = self._wanted(needs.get("gpu", 0), len(self.gpus))
        if cpu > self._free_cpu or num_gpus > len(self._free_gpus):
            return None
        if self._machine is not None and (cpu or num_gpus) and not self._machine.take(wait=not self._num_given):
            return None
        self._num_given += 1
        self._free_cpu -= cpu
        gpus, self._free_gpus = self._free_gpus[:num_gpus], self._free_gpus[num_gpus:]
        return Grant(cpu, tuple(gpus))

    def give_back(self, grant: Grant) -> None:
        """Take back what a stage had."""
        self._free_cpu += grant.cpu
        self._free_gpus = [gpu for gpu in self.gpus if gpu in {*self._free_gpus, *grant.gpus}]
        self._num_given -= 1
        if self._machine is not None and (self._free_cpu, len(self._free_gpus)) == (self.cpu, len(self.gpus)):
            self._machine.give_back()  # also while stages run elsewhere, which may be a worker here

    @staticmethod
    def _wanted(number: int, there: int) -> int:
        return there if number == ALL else number


def machine_resources(limits: Mapping[str, int]) -> Resources:
    """Return what this machine has, or what `limits` says of it.

    Args:
        limits: How much of ``cpu`` and ``gpu``; 0: all there is.
    """
    gpus = visible_gpus(os.environ)
    wanted = limits["gpu"] or len(gpus)
    more = [str(number) for number in range(len(gpus), wanted)]  # as told: who limits it may know better than we see
    return Resources(limits["cpu"] or len(os.sched_getaffinity(0)), [*gpus, *more][:wanted], shared_machine())


def visible_gpus(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of the NVIDIA GPUs that this process may use, without loading CUDA."""
    if (named := environment.get("CUDA_VISIBLE_DEVICES")) is not None:
        return tuple(name for name in (part.strip() for part in named.split(",")) if name not in ("", "-1"))
    if number := len(list(Path("/proc/driver/nvidia/gpus").glob("*"))):
        return tuple(str(index) for index in range(number))
    if not shutil.which("nvidia-smi"):
        return ()
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False)
    return tuple(str(index) for index in range(sum(line.startswith("GPU ") for line in listed.stdout.splitlines())))
