"""The best configurations of a search on fresh folds: what of their values was luck."""

import csv
import dataclasses
import json
import math
import re
import shutil
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch

from hpsearch import SearchRecord, StudySpec, TrialRecord, load_search, search
from hpsearch.data.splits import SplitSpec, development_data, k_folds, load_split
from hpsearch.data.store import load_dataset
from hpsearch.data.views import DataViews
from hpsearch.engine.place import HISTORY, SPLIT
from hpsearch.errors import CheckpointError, ConfigError, DataError, SearchError
from hpsearch.results import bundle
from hpsearch.results.retraining import seed_job
from hpsearch.results.retraining.candidates import Candidate, FoldComparison, compare_candidates
from hpsearch.results.retraining.rerun import RunEpoch, RunOver, run_training
from hpsearch.results.retraining.retrain import retrain_best
from hpsearch.results.source import search_data
from hpsearch.training.checkpoint import load_checkpoint
from hpsearch.training.objectives import objective_info
from hpsearch.training.seeds import derive_seed

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> SearchRecord:
    folder = tmp_path_factory.mktemp("searched")
    digits = load_dataset("digits")
    np.savez(folder / "few.npz", images=digits.images[:300], labels=digits.labels[:300])
    spec = StudySpec(
        artifacts="none",
        data=str(folder / "few.npz"),
        families=("logistic", "mlp"),
        trials=6,
        epochs=3,
        keep=1,
        pruner="none",
    )
    return search(spec, runs=folder / "runs", device="cpu", workers=0)


@pytest.fixture
def found(searched: SearchRecord, tmp_path: Path) -> SearchRecord:
    shutil.copytree(searched.runs, tmp_path / "runs")
    return load_search(tmp_path / "runs")


def test_the_mean_over_folds_decides(found: SearchRecord) -> None:
    data = search_data(found.best)
    result = compare_candidates(data, top=3, folds=2, device=CPU)
    by_place = sorted(result.candidates, key=lambda candidate: candidate.place)
    assert [c.trial.name for c in by_place] == [trial.name for trial in found.ranked()[:3]]
    assert [c.place for c in by_place] == [1, 2, 3]
    means = [candidate.mean for candidate in result.candidates]
    assert means == sorted(means, reverse=True)  # type: ignore[type-var]

    # One candidate's folds by hand.
    spec = SplitSpec.from_dict(found.spec["split"])
    splits = k_folds(data.dataset, load_split(found.folder / SPLIT), 2, spec)
    own = by_place[2]
    config = own.trial.config
    assert config is not None
    values = []
    for number, split in enumerate(splits):
        seed = derive_seed(config.seed, "fold", number) % 2**32
        assert seed != config.seed
        views = DataViews.of(development_data(data.dataset, split), CPU)
        run = run_training(dataclasses.replace(config, seed=seed), views, CPU, origin={})
        values.append(max(result.val_accuracy for result in run.history))
    assert own.values == tuple(values)
    assert own.mean == statistics.fmean(values)
    assert own.standard_error == pytest.approx(abs(values[0] - values[1]) / 2)
    assert own.difference == own.mean - own.trial.value  # type: ignore[operator]
    assert result.train_images == 120
    assert result.searched_images == 180
    assert any("120 images, fewer than the search's 180" in note for note in result.notes)
    assert load_search(found.runs).openings == ()


def test_only_the_one_that_stays_best_is_tested(
    found: SearchRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "write_program", lambda *_, **__: None)
    monkeypatch.setattr(bundle, "write_figures", lambda *_, **__: {})
    done = retrain_best(found, tmp_path / "out", top=3, folds=2, seeds=2, device="cpu")
    assert done.comparison is not None
    winner = done.comparison.winner
    assert done.trial.name == winner.trial.name
    again = load_search(found.runs)
    assert [(o.trial, o.purpose) for o in again.openings] == [
        (winner.trial.name, "retrain, 2 seeds on train+val")
    ]
    assert again.results[0].details["candidates"] == 3
    assert {len(seed.history) for seed in done.seeds} == {winner.length}
    assert "over 2 seeds" in done.notes[0]
    assert "standard deviation" in done.notes[0]
    checkpoint = load_checkpoint(done.folder / "model.pt")
    assert checkpoint.origin["trial"] == winner.trial.name
    with (done.folder / "candidates.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in rows] == [c.trial.name for c in done.comparison.candidates]
    for row in rows:
        folds = [float(row["fold_1"]), float(row["fold_2"])]
        assert float(row["folds_mean"]) == pytest.approx(statistics.fmean(folds))
        expected = float(row["folds_mean"]) - float(row["search_value"])
        assert float(row["difference"]) == pytest.approx(expected)
    assert (done.folder / "candidates.png").is_file()
    document = json.loads((done.folder / "retrain.json").read_text(encoding="utf-8"))
    assert document["comparison"]["folds"] == 2
    assert "as the folds found best" in done.metrics["chosen"]
    assert set(done.comparison.notes) <= set(done.notes)


def test_one_that_cannot_be_trained_comes_last(found: SearchRecord) -> None:
    data = search_data(found.best)

    def broken(trial: TrialRecord) -> TrialRecord:
        assert trial.config is not None
        optimizer = dataclasses.replace(trial.config.optimizer, lr=1e30)
        return dataclasses.replace(
            trial, config=dataclasses.replace(trial.config, optimizer=optimizer)
        )

    def comparison(broken_names: set[str]) -> FoldComparison:
        trials = tuple(broken(t) if t.name in broken_names else t for t in found.trials)
        record = dataclasses.replace(found, trials=trials)
        changed = dataclasses.replace(data, record=record)
        return compare_candidates(changed, top=2, folds=2, device=CPU, watch=watch)

    events: list[RunOver] = []

    def watch(event: RunEpoch | RunOver) -> None:
        if isinstance(event, RunOver):
            events.append(event)

    first, second = (trial.name for trial in found.ranked()[:2])
    result = comparison({first})
    assert [event.epochs for event in events if event.failure] == [3]  # that it had at most
    assert [c.trial.name for c in result.candidates] == [second, first]
    assert result.candidates[1].mean is None
    assert "not finite" in result.candidates[1].failure
    assert any(f"{first} is last" in note for note in result.notes)
    assert f"The search's best, {first}, could not be trained again" in result.notes[0]
    assert result.rows()[1]["fold_1"] is None
    with pytest.raises(SearchError, match="none of the 2 best configurations"):
        comparison({first, second})


def candidate(
    best: TrialRecord, name: str, place: int, searched: float, *values: float
) -> Candidate:
    family, _, number = name.rpartition("-")
    trial = dataclasses.replace(best, family=family, number=int(number), value=searched)
    return Candidate(
        trial=trial,
        place=place,
        values=values,
        losses=(0.1,) * len(values),
        best_epochs=tuple(range(len(values))),
    )


@pytest.mark.parametrize(
    ("objective", "value_then", "values", "says"),
    [
        ("val_accuracy", 0.99, (0.95, 0.951), "is worse by 3.95 points .* about so much .* luck"),
        ("val_accuracy", 0.99, (0.97, 0.995), "is worse by 0.75 points .* which chance alone can"),
        ("val_accuracy", 0.95, (0.97, 0.975), "is better by 2.25 points .* no luck"),
        ("val_loss", 0.10, (0.20, 0.201), r"is worse by 0\.1005 of .* about so much .* luck"),
        ("val_loss", 0.10, (0.05, 0.06), r"is better by 0\.0450 of .* no luck"),
    ],
)
def test_luck_in_words(
    found: SearchRecord, objective: str, value_then: float, values: tuple[float, ...], says: str
) -> None:
    row = objective_info(objective)
    result = FoldComparison(
        candidates=(candidate(found.best, "mlp-3", 1, value_then, *values),),
        asked=1,
        objective=row,
        folds=2,
        train_images=180,
        searched_images=180,
    )
    assert len(result.notes) == 2
    assert re.search(says, result.notes[0]), result.notes[0]
    assert result.notes[1] == "mlp-3 stays the best of 1."


def test_changed_ranks_in_words(found: SearchRecord) -> None:
    result = FoldComparison(
        candidates=(
            candidate(found.best, "cnn-4", 3, 0.97, 0.96, 0.98),
            candidate(found.best, "mlp-1", 2, 0.98, 0.95, 0.96),
            candidate(found.best, "mlp-0", 1, 0.99, 0.94, 0.95),
        ),
        asked=9,
        objective=objective_info("val_accuracy"),
        folds=2,
        train_images=180,
        searched_images=180,
    )
    assert result.notes[1] == (
        "9 configurations were asked for, but the search has only 3 complete trials: these are "
        "compared."
    )
    assert result.notes[2] == (
        "cnn-4, number 3 of the search, comes out best; the search's best, mlp-0, comes out as "
        "number 3 of 3."
    )


def test_fewer_images_are_told_of_those_that_had_more_alone(found: SearchRecord) -> None:
    def cut(row: Candidate, images: int) -> Candidate:
        assert row.trial.config is not None
        config = dataclasses.replace(row.trial.config, train_images=images)
        return dataclasses.replace(row, trial=dataclasses.replace(row.trial, config=config))

    rows = [candidate(found.best, f"mlp-{n}", n, 0.9, 0.9, 0.9) for n in (1, 2, 3)]

    def notes(*images: int) -> list[str]:
        cuts = tuple(cut(row, count) for row, count in zip(rows, images, strict=True))
        result = FoldComparison(
            candidates=cuts,
            asked=3,
            objective=objective_info("val_accuracy"),
            folds=2,
            train_images=120,
            searched_images=180,
        )
        return [note for note in result.notes if note.startswith("Each fold")]

    assert notes(100, 100, 120) == []
    assert notes(0, 0, 180) == [
        "Each fold trains on 120 images, fewer than the search's 180: a part of the difference can "
        "be that."
    ]
    some = notes(100, 150, 0)
    assert [note.partition(",")[0] for note in some] == [
        "Each fold trains mlp-2 on 120 images",
        "Each fold trains mlp-3 on 120 images",
    ]
    assert "search's 150:" in some[0]


def test_histories_that_will_be_needed_are_looked_for_first(
    found: SearchRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seed_job, "follows_validation", lambda _: ("the learning rate",))
    (found.ranked()[1].folder / HISTORY).unlink()

    def watch(event: RunEpoch | RunOver) -> None:
        pytest.fail("training began")

    with pytest.raises(CheckpointError, match="history"):
        retrain_best(found, tmp_path / "out", top=2, folds=2, device="cpu", watch=watch)


@pytest.mark.parametrize(
    ("epochs", "length"), [((4, 4, 4), 5), ((1, 9, 2), 3), ((1, 2), 3), ((1, 3), 3), ((0, 0), 1)]
)
def test_as_many_epochs_as_the_median_of_the_best(
    found: SearchRecord, epochs: tuple[int, ...], length: int
) -> None:
    row = Candidate(trial=found.best, place=1, best_epochs=epochs)
    assert row.length == length
    assert math.isclose(row.length, statistics.median(epochs) + 1, abs_tol=0.5)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"top": 0}, ConfigError, "top must be a whole number of at least 1, but is 0"),
        ({"folds": 1}, ConfigError, "folds must be a whole number of at least 2, but is 1"),
        ({"seeds": 0}, ConfigError, "seeds must be"),
        ({"folds": 500}, DataError, "number of folds must be from 2 to"),
    ],
)
def test_bad_arguments_leave_nothing(
    found: SearchRecord,
    tmp_path: Path,
    arguments: dict[str, int],
    kind: type[Exception],
    message: str,
) -> None:
    with pytest.raises(kind, match=message):
        retrain_best(found, tmp_path / "out", device="cpu", **arguments)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert load_search(found.runs).openings == ()
