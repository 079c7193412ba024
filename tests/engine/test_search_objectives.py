"""Searches for each objective: what is kept, ranked, shown and exported follows it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from rich.console import Console

from hpsearch import SearchRecord, StudySpec, TrialRecord, export, load_search, search
from hpsearch.cli.live import LiveView, PlainView
from hpsearch.cli.report import print_report
from hpsearch.config import TrainConfig
from hpsearch.data.dataset import ImageDataset
from hpsearch.engine.events import EpochFinished, Event, TrialFinished
from hpsearch.engine.place import DATABASE, Place
from hpsearch.engine.records import rank
from hpsearch.engine.search_reader import trial_record
from hpsearch.errors import SearchError
from hpsearch.figures.curves import curves_figure
from hpsearch.figures.png import save_png
from hpsearch.results.reports.document import report_document
from hpsearch.training.checkpoint import load_checkpoint
from hpsearch.training.history import read_batches, read_history
from hpsearch.training.objectives import OBJECTIVES, Objective

each_objective = pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda row: row.name)


SCORES = ("val_accuracy", "val_balanced_accuracy", "val_macro_f1", "val_loss")


def trial_with(
    number: int, objective: str, *scores: float | None, state: str = "complete"
) -> TrialRecord:
    """A record with the scores as given."""
    values: dict[str, Any] = dict(zip(SCORES, scores, strict=True))
    return TrialRecord(
        place=Place(Path("runs")),
        search="digits",
        family="mlp",
        number=number,
        state=state,
        chosen_by="random",
        params={},
        config=None,
        objective=objective,
        value=values[objective],
        **values,
        best_epoch=0,
        epochs=1,
        seconds=1.0,
        parameters=1,
        failure="",
        note="",
        folder=Path("runs"),
    )


@pytest.mark.parametrize(
    ("objective", "order"),
    [
        ("val_accuracy", [0, 4, 1, 2, 3]),
        ("val_balanced_accuracy", [1, 4, 2, 0, 3]),
        ("val_macro_f1", [2, 4, 1, 0, 3]),
        ("val_loss", [3, 2, 0, 1, 4]),
    ],
)
def test_trials_are_ranked_by_the_objective(objective: str, order: list[int]) -> None:
    scores = [
        (0.9, 0.5, 0.5, 0.4),  # each of the first four is the best by another measure
        (0.8, 0.9, 0.6, 0.45),
        (0.7, 0.6, 0.9, 0.3),
        (0.6, 0.4, 0.4, 0.1),
        (0.9, 0.9, 0.9, 0.5),  # level with the best three times, with a higher loss
        (1.0, 1.0, 1.0, 0.0),  # not complete
    ]
    trials = [
        trial_with(number, objective, *row, state="pruned" if number == 5 else "complete")
        for number, row in enumerate(scores)
    ]
    assert [t.number for t in rank(trials)] == order


def test_a_trial_without_an_epoch_is_last() -> None:
    for row in OBJECTIVES:
        none = trial_with(0, row.name, None, None, None, None)
        worst = trial_with(1, row.name, 0.0, 0.0, 0.0, 1e6)
        assert worst.key > none.key


def test_a_trial_of_the_first_version_is_read(tmp_path: Path) -> None:
    attrs = {"val_accuracy": 0.9, "val_loss": 0.3, "best_epoch": 4, "epochs": 6}
    frozen = optuna.trial.create_trial(value=0.9, user_attrs=attrs)
    record = trial_record(Place(tmp_path), "digits", "mlp", frozen, objective="val_accuracy")
    assert (record.value, record.val_balanced_accuracy, record.val_macro_f1) == (0.9, None, None)
    assert record.key == (0.9, -0.3)


@pytest.fixture(scope="module")
def uneven(digits: ImageDataset, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four noisy digits that are hard to tell apart, one of them rare, so that scores differ."""
    rows = [
        np.flatnonzero(digits.labels == label)[:count]
        for label, count in ((1, 90), (8, 60), (9, 60), (3, 20))
    ]
    taken = np.concatenate(rows)
    _, labels = np.unique(digits.labels[taken], return_inverse=True)
    noise = np.random.default_rng(0).normal(0, 60, digits.images[taken].shape)
    images = np.clip(digits.images[taken] + noise, 0, 255).astype(np.uint8)
    path = tmp_path_factory.mktemp("data") / "uneven.npz"
    np.savez(path, images=images, labels=labels)
    return str(path)


def spec_of(data: str, objective: str) -> StudySpec:
    return StudySpec(
        artifacts="none",
        data=data,
        families=("logistic",),
        trials=5,
        epochs=6,
        objective=objective,
        keep=5,
        # Steps so long that the scores go up and down.
        overrides={"optimizer": "sgd", "lr": 20.0, "schedule": "linear", "momentum": 0.9},
    )


class Searched:
    """One search of each objective, with what it told those who watched."""

    def __init__(self, data: str, folder: Path) -> None:
        self.events: dict[str, list[Event]] = {row.name: [] for row in OBJECTIVES}
        self.records = {
            row.name: search(
                spec_of(data, row.name),
                runs=folder / row.name,
                device="cpu",
                watch=self.events[row.name].append,
            )
            for row in OBJECTIVES
        }

    def __getitem__(self, objective: Objective) -> SearchRecord:
        return self.records[objective.name]


@pytest.fixture(scope="module")
def searched(uneven: str, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    return Searched(uneven, tmp_path_factory.mktemp("searches"))


def best_of(rows: list[Any], objective: Objective) -> Any:
    """Written out once more: the best value, of several the one with the lowest loss, of several
    the first.
    """
    pick = max if objective.direction == "maximize" else min
    value = pick(getattr(row, objective.name) for row in rows)
    level = [row for row in rows if getattr(row, objective.name) == value]
    lowest = min(row.val_loss for row in level)
    return next(row for row in level if row.val_loss == lowest)


@each_objective
class TestASearch:
    def test_each_trial_keeps_its_best_epoch(
        self, objective: Objective, searched: Searched
    ) -> None:
        record = searched[objective]
        complete = [t for t in record.trials if t.state == "complete"]
        assert len(complete) >= 3
        for trial in complete:
            best = best_of(list(read_history(trial.folder / "history.csv")), objective)
            assert trial.best_epoch == best.epoch
            assert trial.value == getattr(best, objective.name)
            for name in SCORES:
                assert getattr(trial, name) == getattr(best, name)
            assert trial.checkpoint is not None
            assert load_checkpoint(trial.checkpoint).metrics["epoch"] == best.epoch
            assert isinstance(trial.config, TrainConfig)
            assert trial.config.objective == trial.objective == objective.name

    def test_trials_are_ranked_by_it(self, objective: Objective, searched: Searched) -> None:
        record = searched[objective]
        complete = [t for t in record.trials if t.state == "complete"]
        assert record.best == record.leader() == best_of(complete, objective)
        values = [t.value for t in record.ranked()]
        assert values == sorted(values, reverse=objective.direction == "maximize")  # type: ignore[type-var]

    def test_optuna_knows_it(self, objective: Objective, searched: Searched) -> None:
        record = searched[objective]
        storage = f"sqlite:///{record.place.runs / DATABASE}"
        study = optuna.load_study(study_name=f"{record.name}/logistic", storage=storage)
        assert study.direction.name.lower() == objective.direction
        assert study.metric_names == [objective.label]
        for frozen, trial in zip(study.trials, record.trials, strict=True):
            history = read_history(trial.folder / "history.csv")
            assert frozen.intermediate_values == {
                row.epoch: getattr(row, objective.name) for row in history
            }
            if trial.state == "complete":
                assert frozen.value == trial.value
        assert study.best_value == record.best.value

    def test_the_export_is_of_that_epoch(
        self, objective: Objective, searched: Searched, tmp_path: Path
    ) -> None:
        best = searched[objective].best
        result = export(best, tmp_path / "out", device="cpu")
        assert load_checkpoint(result.checkpoint).metrics["epoch"] == best.best_epoch
        metrics = json.loads(result.metrics_json.read_text(encoding="utf-8"))
        assert metrics["epoch"] == best.best_epoch
        assert metrics["objective"] == {"name": objective.name, "value": best.value}
        assert metrics["validation"][objective.name.removeprefix("val_")] == best.value
        curves = curves_figure(
            read_history(best.folder / "history.csv"),
            objective=objective,
            title=f"{best.search}, {best.name}",
            batches=read_batches(best.folder / "batches.csv"),
        )
        save_png(curves, tmp_path / "curves.png")
        assert (tmp_path / "curves.png").read_bytes() == result.curves_png.read_bytes()

    def test_what_people_see_names_it(
        self, objective: Objective, searched: Searched, capsys: pytest.CaptureFixture[str]
    ) -> None:
        record = searched[objective]
        assert record.best.value is not None
        value = record.best.value
        shown = f"{value:.4f}" if objective.name == "val_loss" else f"{100 * value:.2f} %"
        document = report_document(record)
        assert document["searches"][0]["objective"] == objective.name
        assert document["leaderboard"][0]["value"] == value
        print_report(Console(width=200), document)
        report = capsys.readouterr().out
        assert f"best {objective.label} first" in report
        row = next(line for line in report.splitlines() if line.split()[:1] == ["logistic"])
        assert " ".join(row.split()).startswith(f"logistic {shown}")
        with PlainView(Console(width=200)) as view:
            for event in searched.events[objective.name]:
                view.watch(event)
        lines = capsys.readouterr().out.splitlines()
        name = "validation" if objective.name == "val_accuracy" else objective.label
        assert f"best {record.best.name} {shown}" in lines[-1]
        assert any(f"{record.best.name} complete  {name} {shown}  " in line for line in lines)

    def test_the_live_view_shows_it(
        self, objective: Objective, searched: Searched, capsys: pytest.CaptureFixture[str]
    ) -> None:
        events = searched.events[objective.name]
        last = max(i for i, event in enumerate(events) if isinstance(event, TrialFinished))
        shown = "{:.4f}" if objective.name == "val_loss" else "{:.2%}"
        view = LiveView(Console(width=200))
        for event in events[:last]:
            view.watch(event)
        epochs = [e for e in events[:last] if isinstance(e, EpochFinished)]
        running = [e.result for e in epochs if e.name == epochs[-1].name]
        now, best = (
            shown.format(getattr(row, objective.name)).replace("%", " %")
            for row in (running[-1], best_of(running, objective))
        )
        capsys.readouterr()
        Console(width=200).print(view.render())
        screen = " ".join(capsys.readouterr().out.split())
        name = "validation" if objective.name == "val_accuracy" else objective.label
        assert f"failed best {name} trial" in screen
        assert f"{running[-1].epoch + 1}/6 {name} {now} (best {best})" in screen

    def test_another_one_is_refused(self, objective: Objective, searched: Searched) -> None:
        record = load_search(searched[objective].place.runs)
        other = next(row.name for row in OBJECTIVES if row is not objective)
        with pytest.raises(SearchError) as caught:
            search(
                spec_of(record.spec["data"]["source"], other), runs=record.place.runs, device="cpu"
            )
        assert f"objective ({objective.name} then, {other} now)" in str(caught.value)
        assert load_search(record.place.runs) == record


def test_the_objectives_disagree(searched: Searched) -> None:
    """Else the tests above would pass whichever of them decides."""
    record = searched.records["val_accuracy"]
    histories = [list(read_history(trial.folder / "history.csv")) for trial in record.trials]
    chosen = {tuple(best_of(history, row).epoch for history in histories) for row in OBJECTIVES}
    assert len(chosen) == len(OBJECTIVES)


def test_a_search_of_the_first_version_goes_on(uneven: str, tmp_path: Path) -> None:
    spec = dataclasses.replace(spec_of(uneven, "val_accuracy"), trials=1, epochs=2)
    record = search(spec, runs=tmp_path, device="cpu")
    storage = f"sqlite:///{tmp_path / DATABASE}"
    study = optuna.load_study(study_name=f"{record.name}/logistic", storage=storage)
    study.set_user_attr("spec", {k: v for k, v in record.spec.items() if k != "objective"})
    before = load_search(tmp_path)
    assert before.objective.name == "val_accuracy"
    with pytest.raises(SearchError, match=r"objective \(val_accuracy then, val_loss now\)"):
        search(dataclasses.replace(spec, objective="val_loss"), runs=tmp_path, device="cpu")
    after = search(dataclasses.replace(spec, trials=2), runs=tmp_path, device="cpu")
    assert after.trials[0] == before.trials[0]
    assert after.count("complete") == 2


def test_epochs_are_told_with_the_result_of_the_training(searched: Searched) -> None:
    """What the live view shows of a running trial are the numbers of its history."""
    events = searched.events["val_loss"]
    told = [e.result for e in events if isinstance(e, EpochFinished)]
    ended = [e.trial for e in events if isinstance(e, TrialFinished)]
    history = [row for trial in ended for row in read_history(trial.folder / "history.csv")]
    assert [r.val_loss for r in told] == [r.val_loss for r in history]
