"""What a search runs on: its devices, how many worker processes, how many threads each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from hpsearch.data.views import DataViews
from hpsearch.engine.estimate import Pace, family_epoch_seconds
from hpsearch.engine.spec import StudySpec
from hpsearch.errors import SearchError
from hpsearch.training.device import resolve_device

START_SECONDS = 10.0
"""What starting worker processes takes."""

_GAIN = 0.9
"""Workers are started where the search is taken to need at most this share of the time."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crew:
    """The processes that run trials.

    Attributes:
        workers: 0: the search's own process does.
        threads: of torch, in each.
        why: where it was measured, what was found.
    """

    workers: int
    threads: int
    why: str = ""


def choose_crew(
    spec: StudySpec,
    left: Mapping[str, int],
    views: DataViews,
    device: torch.device,
    *,
    paces: Mapping[str, Pace],
    epochs: Mapping[str, tuple[int, int]],
    workers: int | None,
    devices: int,
    cores: int,
) -> Crew:
    """The crew for what is left to do.

    On a CPU, one worker a core with one thread each is compared with one process with all threads,
    by an epoch of what each family tries first, which is measured both ways.

    Args:
        paces: with an epoch's time in this process, with all threads that are set now.
        workers: where the user says how many.
        devices: how many there are.
        cores: how many threads torch would use by itself.
    """
    threads = torch.get_num_threads()
    if workers is None and device.type != "cpu":
        workers = devices
    if workers == 0:
        return Crew(workers=0, threads=threads)
    if workers is not None:
        return Crew(workers=workers, threads=min(threads, max(1, cores // workers)))
    trials = {family: count * epochs[family][1] for family, count in left.items() if count}
    here = sum(paces[family].epoch_seconds * count for family, count in trials.items())
    many = min(cores, _fitting(), sum(left.values()))
    if many < 2 or START_SECONDS + here / many > _GAIN * here:
        return Crew(workers=0, threads=threads)
    torch.set_num_threads(1)
    try:
        alone = sum(
            family_epoch_seconds(spec, family, views, device, paces[family]) * count
            for family, count in trials.items()
        )
    finally:
        torch.set_num_threads(threads)
    there = START_SECONDS + alone / many
    why = (
        f"measured: all would take {there:.0f} s with {many} workers of one thread, and "
        f"{here:.0f} s in one process with {threads} threads"
    )
    if there > _GAIN * here:
        return Crew(workers=0, threads=threads, why=why)
    return Crew(workers=many, threads=1, why=why)


def _fitting() -> int:
    """How many processes like this one the free memory is enough for."""
    try:
        import resource  # not on Windows

        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (ImportError, OSError, StopIteration, ValueError):
        return 1_000_000  # not known: no limit
    return max(1, free // resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # both in KiB


def choose_devices(
    spec: StudySpec, device: str, devices: Sequence[str]
) -> tuple[torch.device, ...]:
    """The devices that are named, in which workers take turns.

    Raises:
        SearchError: one of them does not fit the study, or both options are given.
    """
    if devices and device != "auto":
        raise SearchError(f"give --device or --devices, not both: {device} and {','.join(devices)}")
    return tuple(_device(spec, name) for name in devices or (device,))


def _device(spec: StudySpec, name: str) -> torch.device:
    device = resolve_device(name)
    if spec.execution == "graph" and device.type != "cuda":
        raise SearchError(
            f"execution graph is for CUDA graphs, but the device is {device}; use auto or eager"
        )
    return device
