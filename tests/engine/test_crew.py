"""How many processes run trials, and why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from hpsearch import StudySpec
from hpsearch.engine import crew
from hpsearch.engine.crew import START_SECONDS, Crew, choose_crew, choose_devices
from hpsearch.engine.estimate import Pace
from hpsearch.errors import HpsearchError

CPU = torch.device("cpu")
FAMILIES = ("mlp", "cnn")
SPEC = StudySpec(families=FAMILIES)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """By family an epoch's seconds with one thread, to be set; memory is no limit."""
    seconds: dict[str, float] = {}

    def measured(_: StudySpec, family: str, *__: object) -> float:
        assert torch.get_num_threads() == 1
        return seconds[family]

    monkeypatch.setattr(crew, "family_epoch_seconds", measured)
    monkeypatch.setattr(crew, "_fitting", lambda: 1_000)
    return seconds


def chosen(
    trials: int = 10, epoch: float = 10.0, device: torch.device = CPU, **changes: Any
) -> Crew:
    """For two families of so many trials of ten epochs each."""
    views: Any = None  # only who measures looks at them
    crew_of: dict[str, Any] = {"workers": None, "devices": 1, "cores": 4, **changes}
    return choose_crew(
        SPEC,
        dict.fromkeys(FAMILIES, trials),
        views,
        device,
        paces=dict.fromkeys(FAMILIES, Pace(precision="fp32", epoch_seconds=epoch)),
        epochs=dict.fromkeys(FAMILIES, (1, 10)),
        **crew_of,
    )


def test_workers_where_they_are_faster(alone: dict[str, float]) -> None:
    alone.update(mlp=20.0, cnn=12.0)
    assert START_SECONDS + 100 * (20 + 12) / 4 == 810
    assert chosen() == Crew(
        workers=4,
        threads=1,
        why="measured: all would take 810 s with 4 workers of one thread, and 2000 s in one "
        "process with 4 threads",
    )


def test_one_process_where_they_gain_too_little(alone: dict[str, float]) -> None:
    alone.update(mlp=40.0, cnn=34.0)  # 1,860 s
    found = chosen()
    assert (found.workers, found.threads) == (0, 4)
    assert found.why.startswith("measured: all would take 1860 s with 4 workers")
    assert torch.get_num_threads() == 4


def test_what_cannot_gain_is_not_measured(alone: dict[str, float]) -> None:
    """Each of these would fail for want of a figure."""
    nothing = Crew(workers=0, threads=4)
    assert chosen(epoch=0.05) == nothing  # over before they have started
    assert chosen(cores=1) == nothing
    assert chosen(trials=0) == nothing
    assert not alone


def test_memory_limits_them(alone: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    alone.update(mlp=10.0, cnn=10.0)
    monkeypatch.setattr(crew, "_fitting", lambda: 3)
    assert chosen().workers == 3
    monkeypatch.setattr(crew, "_fitting", lambda: 1)
    assert chosen() == Crew(workers=0, threads=4)


def test_there_are_no_more_than_trials(alone: dict[str, float]) -> None:
    alone.update(mlp=10.0, cnn=10.0)
    assert chosen(trials=1, epoch=20.0).workers == 2


@pytest.mark.parametrize(
    ("workers", "cores", "expected"),
    [(0, 4, (0, 4)), (2, 4, (2, 2)), (8, 4, (8, 1)), (1, 4, (1, 4))],
)
def test_what_the_user_says(workers: int, cores: int, expected: tuple[int, int]) -> None:
    found = chosen(workers=workers, cores=cores)
    assert (found.workers, found.threads, found.why) == (*expected, "")


def test_gpus_get_one_each() -> None:
    assert chosen(device=torch.device("cuda"), devices=3, cores=16).workers == 3


def test_the_free_memory_is_known_here() -> None:
    assert crew._fitting() >= 0


def test_devices_by_name() -> None:
    assert choose_devices(SPEC, "cpu", ()) == (CPU,)
    with pytest.raises(HpsearchError, match="cuda:7"):
        choose_devices(SPEC, "auto", ("cpu", "cuda:7"))
