from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from few import subset

from hpsearch import StudySpec, plan, search
from hpsearch.config import TrainConfig
from hpsearch.data.dataset import ImageDataset
from hpsearch.data.splits import SplitSpec, development_data, make_split
from hpsearch.data.views import DataViews
from hpsearch.engine import estimate
from hpsearch.engine.estimate import (
    Pace,
    estimates,
    measure_families,
    precision_text,
    total_steps,
)
from hpsearch.engine.events import Event, SearchStarted
from hpsearch.errors import HpsearchError
from hpsearch.training import probe
from hpsearch.training.probe import Choice
from hpsearch.training.settings import Setting, Wanted

CPU = torch.device("cpu")

OWN = """
import torch
from torch import nn
from hpsearch import Family, StagedModel, ask_start, suggest_training

class Broken(nn.Module):
    def forward(self, x):
        if self.training:
            raise ValueError("only in training")
        return x

def suggest(s, shape):
    start = ask_start(s, shape)
    return suggest_training(s, start, options={})

def build(options, shape, n_classes):
    head = nn.Sequential(nn.Flatten(), nn.Linear(shape.height * shape.width, n_classes), Broken())
    return StagedModel({"head": head})

FAMILY = Family(summary="its own", suggest=suggest, build=build, defaults=({"lr": 0.01},))
"""


@pytest.fixture(scope="module")
def views(digits: ImageDataset) -> DataViews:
    few = subset(digits, np.arange(300))
    split = make_split(few, SplitSpec(val=0.2, test=0.2))
    return DataViews.of(development_data(few, split), CPU)


def measured(
    views: DataViews,
    *families: str,
    left: Mapping[str, int] | None = None,
    stored: Mapping[str, Pace] | None = None,
    **changes: Any,
) -> dict[str, Pace]:
    spec = StudySpec(families=families, trials=len(families) * 2, epochs=2, **changes)
    return measure_families(spec, left or spec.shares(), views, CPU, stored or {})


def fake_choice(
    monkeypatch: pytest.MonkeyPatch, choose: Callable[[TrainConfig, Wanted], Setting]
) -> list[dict[str, Any]]:
    """Notes what is asked for, and chooses without measuring."""
    asked: list[dict[str, Any]] = []

    def choice(
        _: Any, config: TrainConfig, *args: Any, steps: int, batch: int, wanted: Wanted
    ) -> Choice:
        asked.append({"config": config, "steps": steps, "batch": batch, "wanted": wanted})
        return Choice(setting=choose(config, wanted), source="probe", step_seconds=0.25)

    monkeypatch.setattr(estimate, "choose_setting", choice)
    monkeypatch.setattr(estimate, "epoch_seconds", lambda _, __, config, ___: config.epochs * 10.0)
    return asked


class TestMeasuring:
    def test_each_family_is_measured(self, views: DataViews) -> None:
        paces = measured(views, "logistic", "mlp")
        assert list(paces) == ["logistic", "mlp"]
        for pace in paces.values():
            assert pace.precision == "fp32"
            assert pace.epoch_seconds > 0
            assert pace.step_seconds > 0

    def test_families_without_trials_left_are_not(
        self, views: DataViews, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = fake_choice(monkeypatch, lambda *_: Setting.of(TrainConfig(family="x")))
        paces = measured(views, "logistic", "mlp", left={"logistic": 0, "mlp": 3})
        assert paces["logistic"] == Pace(precision="fp32")
        assert paces["mlp"] == Pace(precision="fp32", epoch_seconds=20.0, step_seconds=0.25)
        assert [row["config"].family for row in asked] == ["mlp"]

    def test_what_counts_are_the_steps_of_all_trials_that_are_left(
        self, views: DataViews, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = fake_choice(monkeypatch, lambda *_: Setting.of(TrainConfig(family="x")))
        measured(views, "mlp", left={"mlp": 7}, overrides={"batch_size": 50})
        assert asked[0]["steps"] == 7 * 2 * 4  # 180 images in four batches, two epochs

    def test_the_setting_that_is_timed_is_the_chosen_one(
        self, views: DataViews, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        setting = Setting(precision="bf16", memory_format="contiguous")
        fake_choice(monkeypatch, lambda *_: setting)
        timed: list[TrainConfig] = []

        def seconds(_: Any, __: Any, config: TrainConfig, ___: Any) -> float:
            timed.append(config)
            return 1.0

        monkeypatch.setattr(estimate, "epoch_seconds", seconds)
        paces = measured(views, "mlp")
        assert paces["mlp"].precision == "bf16"
        assert [Setting.of(config) for config in timed] == [setting]

    def test_a_search_that_exists_keeps_its_precision(
        self, views: DataViews, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = fake_choice(
            monkeypatch,
            lambda _, wanted: wanted.forced(
                Setting(precision="fp32", memory_format="channels_last")
            ),
        )
        decided = {"mlp": Pace(precision="bf16", step_seconds=0.125)}
        paces = measured(views, "logistic", "mlp", stored=decided)
        assert paces["logistic"].precision == "fp32"
        assert [row["config"].family for row in asked] == ["logistic"]  # what is decided stays
        assert paces["mlp"] == dataclasses.replace(decided["mlp"], epoch_seconds=20.0)
        done = measured(views, "mlp", left={"mlp": 0}, stored=decided)
        assert done == decided

    def test_a_batch_has_no_more_images_than_there_are(
        self, views: DataViews, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = fake_choice(
            monkeypatch, lambda *_: Setting(precision="fp32", memory_format="channels_last")
        )
        measured(views, "mlp", overrides={"batch_size": 4096})
        measured(views, "mlp", overrides={"batch_size": 100})
        assert [row["batch"] for row in asked] == [180, 90]

    def test_what_the_user_wants_is_asked_for(
        self, views: DataViews, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = fake_choice(
            monkeypatch, lambda *_: Setting(precision="bf16", memory_format="contiguous")
        )
        measured(views, "mlp", precision="bf16", memory_format="contiguous", execution="eager")
        assert asked[0]["wanted"] == Wanted(
            precision="bf16", memory_format="contiguous", execution="eager"
        )
        assert asked[0]["config"].precision == "bf16"

    def test_random_numbers_of_the_caller_are_left_alone(self, views: DataViews) -> None:
        state = torch.get_rng_state()
        measured(views, "cnn", overrides={"channels": 8, "blocks": 1, "convs": 1})
        assert torch.equal(torch.get_rng_state(), state)


class TestWhatCannotBeTrained:
    @pytest.mark.parametrize(
        "overrides",
        [
            {"train_images": 5},  # fewer than classes
            {"batch_size": 1, "batch_norm": "yes"},  # no deviation of one image
        ],
        ids=str,
    )
    def test_it_stops_nothing(self, views: DataViews, overrides: dict[str, Any]) -> None:
        paces = measured(views, "mlp", overrides=overrides)
        assert paces == {"mlp": Pace(precision="fp32")}
        assert measured(views, "mlp", overrides=overrides, precision="bf16") == {
            "mlp": Pace(precision="bf16")
        }

    @pytest.mark.parametrize("where", ["choose_setting", "epoch_seconds"])
    def test_without_memory_for_it_the_next_family_is_measured(
        self, views: DataViews, monkeypatch: pytest.MonkeyPatch, where: str
    ) -> None:
        real = getattr(probe, where)
        calls = itertools.count()

        def first_fails(*args: Any, **kwargs: Any) -> Any:
            if next(calls) == 0:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return real(*args, **kwargs)

        monkeypatch.setattr(estimate, where, first_fails)
        paces = measured(views, "mlp", "logistic")
        assert paces["mlp"] == Pace(precision="fp32")
        assert paces["logistic"].epoch_seconds > 0

    def test_a_bug_of_ours_is_not_hidden(
        self, views: DataViews, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: Any, **__: Any) -> Any:
            raise ZeroDivisionError

        monkeypatch.setattr(estimate, "epoch_seconds", broken)
        with pytest.raises(ZeroDivisionError):
            measured(views, "logistic")

    def test_one_in_a_users_model_is_a_failed_trial(self, tmp_path: Path) -> None:
        own = tmp_path / "own.py"
        own.write_text(OWN, encoding="utf-8")
        spec = StudySpec(families=(str(own), "logistic"), trials=2, epochs=1)
        record = search(spec, runs=tmp_path / "runs", device="cpu")
        states = {trial.family: trial.state for trial in record.trials}
        assert states == {"own": "failed", "logistic": "complete"}


class TestSearches:
    def test_a_plan_and_a_search_say_what_is_left(self, tmp_path: Path) -> None:
        spec = StudySpec(families=("logistic",), trials=2, epochs=2)
        planned = plan(spec, runs=tmp_path, device="cpu")
        (row,) = planned.estimates
        assert (row.family, row.trials) == ("logistic", 2)
        assert row.seconds == pytest.approx(row.epoch_seconds * 2 * 2)
        assert planned.precision == "fp32"
        search(spec, runs=tmp_path, device="cpu")
        (done,) = plan(spec, runs=tmp_path, device="cpu").estimates
        assert (done.trials, done.epoch_seconds, done.seconds) == (0, 0.0, 0.0)

    def test_a_search_goes_on_in_the_precision_that_it_was_made_with(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        events: list[Event] = []
        spec = StudySpec(families=("mlp",), trials=2, epochs=1)
        bf16 = Setting(precision="bf16", memory_format="channels_last")
        with pytest.MonkeyPatch.context() as patch:
            fake_choice(patch, lambda *_: bf16)

            def stop(event: Event) -> None:
                events.append(event)
                if isinstance(event, SearchStarted):
                    raise KeyboardInterrupt

            with pytest.raises(KeyboardInterrupt):
                search(spec, runs=tmp_path, device="cpu", watch=stop)
        # This time nothing is measured, and the rules say fp32.
        record = search(spec, runs=tmp_path, device="cpu", watch=events.append)
        started = [event for event in events if isinstance(event, SearchStarted)]
        assert [event.precision for event in started] == ["bf16", "bf16"]
        assert [trial.config.precision for trial in record.trials if trial.config] == ["bf16"] * 2

    def test_another_precision_is_another_search(self, tmp_path: Path) -> None:
        spec = StudySpec(families=("logistic",), trials=1, epochs=1, precision="fp32")
        search(spec, runs=tmp_path, device="cpu")
        other = StudySpec(families=("logistic",), trials=1, epochs=1, precision="bf16")
        with pytest.raises(HpsearchError, match="fp32 then, bf16 now"):
            search(other, runs=tmp_path, device="cpu")


def test_total_steps_counts_repetitions_and_remainders(views: DataViews) -> None:
    config = TrainConfig(family="mlp", batch_size=50, epochs=3)
    data = views.view(config)
    assert len(data.train) == 180
    assert total_steps(data, config) == 3 * 4
    assert total_steps(data, TrainConfig(family="mlp", batch_size=50, epochs=3, repeat=2)) == 3 * 8
    assert total_steps(data, TrainConfig(family="mlp", batch_size=500, epochs=3)) == 3


def test_estimates_are_for_the_longest_trials() -> None:
    paces = {
        "mlp": Pace(precision="fp32", epoch_seconds=2.0),
        "own.py": Pace(precision="bf16", epoch_seconds=0.5),
    }
    first, second = estimates(paces, {"mlp": 3, "own.py": 0}, {"mlp": (5, 10), "own.py": (4, 4)})
    assert (first.family, first.trials, first.epoch_seconds, first.seconds) == ("mlp", 3, 2.0, 60.0)
    assert (second.family, second.trials, second.seconds) == ("own", 0, 0.0)


@pytest.mark.parametrize(
    ("precisions", "expected"),
    [
        ({"mlp": "fp32"}, "fp32"),
        ({"mlp": "bf16", "cnn": "bf16"}, "bf16"),
        (
            {"logistic": "fp32", "cnn": "bf16", "folder/own.py": "fp32"},
            "fp32 (logistic, own) and bf16 (cnn)",
        ),
    ],
)
def test_the_precision_in_words(precisions: dict[str, Any], expected: str) -> None:
    paces = {family: Pace(precision=precision) for family, precision in precisions.items()}
    assert precision_text(paces) == expected
