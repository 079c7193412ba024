"""Retrain: the trial's own curve again, honest spread over seeds, one look at the test split."""

import csv
import dataclasses
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from hpsearch import EarlyStopping, SearchRecord, StudySpec, TrialRecord, load_search, search
from hpsearch.data.batches import steps_per_epoch
from hpsearch.data.preprocessing import Preprocessing
from hpsearch.data.sealed import open_test_split
from hpsearch.data.splits import load_split
from hpsearch.data.store import load_dataset
from hpsearch.engine.place import HISTORY, SPLIT
from hpsearch.errors import ConfigError, HpsearchError, SearchError
from hpsearch.results import bundle
from hpsearch.results.inference import restore_model, run_model
from hpsearch.results.retraining import rerun, stored
from hpsearch.results.retraining.repeat import is_same
from hpsearch.results.retraining.rerun import RunEpoch, RunOver
from hpsearch.results.retraining.retrain import retrain
from hpsearch.results.retraining.seed_job import seed_job
from hpsearch.results.retraining.stored import Surroundings, stored_config, surroundings
from hpsearch.results.source import search_data
from hpsearch.training.checkpoint import load_checkpoint
from hpsearch.training.history import read_history
from hpsearch.training.schedules import lr_factor

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> SearchRecord:
    """Three families, nothing pruned, on 300 digits; of each one checkpoint is kept."""
    folder = tmp_path_factory.mktemp("searched")
    digits = load_dataset("digits")
    np.savez(folder / "few.npz", images=digits.images[:300], labels=digits.labels[:300])
    spec = StudySpec(
        artifacts="none",
        data=str(folder / "few.npz"),
        families=("logistic", "mlp", "cnn"),
        trials=6,
        epochs=3,
        keep=1,
        pruner="none",
    )
    return search(spec, runs=folder / "runs", device="cpu", workers=0)


@pytest.fixture
def found(searched: SearchRecord, tmp_path: Path) -> SearchRecord:
    """A copy, so that what one test opens or breaks is no other test's."""
    shutil.copytree(searched.runs, tmp_path / "runs")
    return load_search(tmp_path / "runs")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the program and the figures of an export, which other tests are about."""
    monkeypatch.setattr(bundle, "write_program", lambda *_, **__: None)
    monkeypatch.setattr(bundle, "write_figures", lambda *_, **__: {})


def rows_of(folder: Path, name: str = "seeds.csv") -> list[dict[str, str]]:
    with (folder / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def changed(trial: TrialRecord, **optimizer: float) -> TrialRecord:
    assert trial.config is not None
    row = dataclasses.replace(trial.config.optimizer, **optimizer)  # type: ignore[arg-type]
    return dataclasses.replace(trial, config=dataclasses.replace(trial.config, optimizer=row))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("family", ["logistic", "mlp", "cnn"])
def test_the_trials_own_curve_again_to_the_bit(
    found: SearchRecord, tmp_path: Path, family: str
) -> None:
    """Also of trials whose checkpoints were not kept, and whatever torch's threads are now."""
    worst = found.ranked(family)[-1]
    assert worst.checkpoint is None
    assert surroundings(worst).threads == 1
    torch.set_num_threads(2)
    try:
        done = retrain(worst, tmp_path / "out", seeds=1, device="cpu")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert done.repeat is not None
    assert done.repeat.exact is True
    assert any("to the bit" in note for note in done.notes)
    own = read_history(worst.folder / HISTORY)
    assert [row.val_loss for row in done.seeds[0].history] == [row.val_loss for row in own]
    assert [row.train_loss for row in done.seeds[0].history] == [row.train_loss for row in own]
    assert is_same(own, read_history(tmp_path / "out" / "learning_curves.csv"))


@pytest.mark.usefixtures("quick")
def test_a_curve_that_differs_says_by_how_much(found: SearchRecord, tmp_path: Path) -> None:
    trial = changed(found.best, lr=1.01e-3)
    done = retrain(trial, tmp_path / "out", seeds=1, device="cpu")
    assert done.repeat is not None
    assert done.repeat.exact is False
    assert "from epoch 1 on, validation accuracy differs by up to" in done.repeat.text
    (found.best.folder / HISTORY).unlink()
    done = retrain(trial, tmp_path / "out", seeds=1, replace=True, device="cpu")
    assert done.repeat is not None
    assert done.repeat.exact is None
    assert "not there any more" in done.repeat.text


def test_seeds_their_spread_and_the_model_that_is_kept(found: SearchRecord, tmp_path: Path) -> None:
    best = found.leader("mlp")
    assert best is not None
    assert best.config is not None
    done = retrain(best, tmp_path / "out", seeds=3, device="cpu")
    rows = rows_of(done.folder)
    assert len({row["seed"] for row in rows}) == 3
    assert int(rows[0]["seed"]) == best.config.seed
    assert float(rows[0]["val_accuracy"]) == best.val_accuracy

    # Chosen by validation: the accuracy, and of equal ones the lower loss.
    key = [(float(row["val_accuracy"]), -float(row["val_loss"])) for row in rows]
    kept = key.index(max(key))
    assert [row["kept"] for row in rows] == [str(int(n == kept)) for n in range(3)]
    checkpoint = load_checkpoint(done.folder / "model.pt")
    assert checkpoint.origin["seed"] == checkpoint.config.seed == int(rows[kept]["seed"])
    assert checkpoint.origin["retrained"] == "train"
    assert checkpoint.origin["trial"] == best.name

    # The score of its row is that of the file.
    dataset = load_dataset(found.data["source"]["source"])
    test = open_test_split(dataset, load_split(found.folder / SPLIT))
    logits = run_model(restore_model(checkpoint), checkpoint, test, CPU).logits
    right = float((logits.argmax(dim=1).numpy() == test.labels).mean())
    assert float(rows[kept]["test_accuracy"]) == right == done.metrics["test"]["accuracy"]

    # Mean, deviation and interval from their formulas; 4.302653 is Student's t for 3 values.
    values = np.array([float(row["test_accuracy"]) for row in rows])
    half = 4.302653 * values.std(ddof=1) / math.sqrt(3)
    assert done.accuracy.mean == pytest.approx(values.mean())
    assert done.accuracy.std == pytest.approx(values.std(ddof=1))
    assert done.accuracy.interval == pytest.approx(
        (max(0.0, values.mean() - half), min(1.0, values.mean() + half)), abs=1e-6
    )
    document = json.loads((done.folder / "retrain.json").read_text(encoding="utf-8"))
    assert document["mean"] == done.accuracy.mean
    assert document["repeats_the_trial"] is True
    assert done.metrics["epoch"] == int(rows[kept]["epoch"])
    assert done.metrics["validation"]["accuracy"] == float(rows[kept]["val_accuracy"])
    names = {path.name for path in done.folder.iterdir()}
    assert {
        "seeds.csv",
        "seeds.png",
        "retrain.json",
        "model.pt",
        "model.pt2",
        "config.json",
    } < names
    assert {"metrics.json", "predictions.csv", "report.html", "README.md"} < names
    assert not [name for name in names if name.startswith(".")]
    page = (done.folder / "report.html").read_text(encoding="utf-8")
    assert page.index(">All seeds<") < page.index(">Classes<")
    assert page.count("data:image/png;base64,") == 4  # matrix, mistakes, curves, seeds


@pytest.mark.usefixtures("quick")
def test_all_seeds_are_tested_at_one_look(found: SearchRecord, tmp_path: Path) -> None:
    best = found.leader("logistic")
    assert best is not None
    done = retrain(best, tmp_path / "out", seeds=2, device="cpu")
    again = load_search(found.runs)
    assert [row.purpose for row in again.openings] == ["retrain, 2 seeds"]
    assert done.times_opened == done.metrics["test_split_opened"] == 1
    (result,) = again.results
    assert (result.kind, result.trial) == ("retrain", best.name)
    assert result.folder == str(tmp_path / "out")
    assert result.accuracy == done.metrics["test"]["accuracy"]
    assert result.details["mean"] == done.accuracy.mean
    assert result.details["seeds"] == 2
    twice = retrain(best, tmp_path / "out", seeds=2, replace=True, device="cpu")
    assert twice.times_opened == 2
    assert [s.test_scores for s in twice.seeds] == [s.test_scores for s in done.seeds]


@pytest.mark.usefixtures("quick")
def test_on_both_parts_for_as_long_as_the_search_found(found: SearchRecord, tmp_path: Path) -> None:
    best = found.leader("mlp")
    assert best is not None
    assert best.config is not None
    best = dataclasses.replace(best, best_epoch=1)  # of 3 epochs
    done = retrain(best, tmp_path / "out", seeds=2, on="train+val", device="cpu")
    split = load_split(found.folder / SPLIT)
    images = len(split.train) + len(split.val)
    for seed in done.seeds:
        assert len(seed.history) == 2
        steps = steps_per_epoch(images * best.config.repeat, best.config.batch_size)
        assert len(seed.history[0].batch_losses) == steps
    # The schedule is that of 3 epochs.
    own = read_history(best.folder / HISTORY)
    schedule, last = best.config.schedule, (steps - 0.5) / steps
    first, second = (lr_factor(schedule, epoch + last, 3) for epoch in (0, 1))
    lrs = [result.lr for result in done.seeds[0].history]
    assert lrs[1] / lrs[0] == pytest.approx(second / first)
    assert [r.dropout for r in done.seeds[0].history] == [r.dropout for r in own[:2]]
    checkpoint = load_checkpoint(done.folder / "model.pt")
    assert checkpoint.config.epochs == 3
    dataset = load_dataset(found.data["source"]["source"])
    both = dataset.part(np.sort(np.concatenate([split.train, split.val])))
    assert checkpoint.preprocessing == Preprocessing.of(both, best.config.input)
    # Nothing that looks like a validation score, and the first seed is kept.
    assert not [name for name in checkpoint.metrics if name.startswith("val_")]
    rows = rows_of(done.folder)
    assert {row[name] for row in rows for name in row if name.startswith("val_")} == {""}
    assert [row["kept"] for row in rows] == ["1", "0"]
    assert set(done.metrics["validation"].values()) == {None}
    assert "nothing left to validate on" in done.metrics["chosen"]
    assert f"This is seed {best.config.seed}, the first." in done.metrics["chosen"]
    assert not any("train_images" in note for note in done.notes)
    assert done.repeat is None
    assert checkpoint.origin["retrained"] == "train+val"


def test_images_that_add_nothing_are_told_of(found: SearchRecord) -> None:
    trial, data = found.best, search_data(found.best)
    assert trial.config is not None

    def notes(images: int) -> list[str]:
        config = dataclasses.replace(trial.config, train_images=images)
        cut = dataclasses.replace(trial, config=config)
        job = seed_job(cut, data, 1, "train+val", CPU, lambda _: None)
        return [note for note in job.notes if "train_images" in note]

    (note,) = notes(180)  # as many as there are
    assert "takes 180 training images" in note
    assert notes(181) == notes(0) == []


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("on", ["train", "train+val"])
def test_other_epochs_are_spanned_by_the_schedule(
    found: SearchRecord, tmp_path: Path, on: str
) -> None:
    best = found.leader("logistic")
    assert best is not None
    done = retrain(best, tmp_path / "out", seeds=1, on=on, epochs=5, device="cpu")  # type: ignore[arg-type]
    assert len(done.seeds[0].history) == 5
    assert load_checkpoint(done.folder / "model.pt").config.epochs == 5
    assert done.repeat is None


@pytest.mark.usefixtures("quick")
def test_epochs_that_are_asked_for_are_trained_all(found: SearchRecord, tmp_path: Path) -> None:
    """Early stopping is the trial's; it goes where a number of epochs is given."""
    best = found.leader("logistic")
    assert best is not None
    assert best.config is not None
    stopping = EarlyStopping(patience=1, min_gain=1.0)
    hasty = dataclasses.replace(
        best, config=dataclasses.replace(best.config, early_stopping=stopping)
    )
    done = retrain(hasty, tmp_path / "own", seeds=1, device="cpu")
    assert len(done.seeds[0].history) == 2
    assert done.repeat is not None
    done = retrain(hasty, tmp_path / "all", seeds=1, epochs=3, device="cpu")
    assert len(done.seeds[0].history) == 3
    assert done.repeat is None  # that of the trial might have ended earlier
    done = retrain(best, tmp_path / "same", seeds=1, epochs=3, device="cpu")
    assert done.repeat is not None
    assert done.repeat.exact is True
    assert len(repr(done)) < 300
    assert best.name in repr(done)


@pytest.mark.usefixtures("quick")
def test_progress_is_told(found: SearchRecord, tmp_path: Path) -> None:
    events: list[RunEpoch | RunOver] = []
    retrain(found.ranked("logistic")[0], tmp_path / "o", seeds=2, device="cpu", watch=events.append)
    assert [event.what for event in events] == ["seed 1 of 2"] * 4 + ["seed 2 of 2"] * 4
    assert [type(event) for event in events[:4]] == [RunEpoch] * 3 + [RunOver]


def test_an_interruption_leaves_nothing(found: SearchRecord, tmp_path: Path) -> None:
    def watch(event: RunEpoch | RunOver) -> None:
        if event.what == "seed 2 of 2":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        retrain(found.best, tmp_path / "out", seeds=2, device="cpu", watch=watch)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert load_search(found.runs).openings == ()


def test_what_cannot_be_trained_is_no_look(found: SearchRecord, tmp_path: Path) -> None:
    broken = changed(found.ranked("logistic")[0], lr=1e30)
    with pytest.raises(SearchError, match="any of 2 seeds: the loss is not finite in epoch 0"):
        retrain(broken, tmp_path / "out", seeds=2, device="cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert load_search(found.runs).openings == ()


@pytest.mark.usefixtures("quick")
def test_a_seed_that_fails_is_told_and_not_counted(
    found: SearchRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = rerun.initial_model
    best = found.ranked("logistic")[0]

    def poisoned(config, *rest):  # type: ignore[no-untyped-def]
        model = real(config, *rest)
        if config.seed == best.config.seed:  # type: ignore[union-attr]
            with torch.no_grad():
                next(model.parameters()).fill_(math.inf)
        return model

    monkeypatch.setattr(rerun, "initial_model", poisoned)
    done = retrain(best, tmp_path / "out", seeds=3, on="train+val", device="cpu")
    assert done.accuracy.count == 2
    assert done.kept is done.seeds[1]
    rows = rows_of(done.folder)
    assert "not finite" in rows[0]["failure"]
    assert rows[0]["test_accuracy"] == ""
    assert any("could not be trained" in note for note in done.notes)
    assert f"seed {done.kept.seed}, the first that could be trained." in done.metrics["chosen"]


@pytest.mark.usefixtures("quick")
def test_short_memory_is_met_by_smaller_parts(
    found: SearchRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = rerun.Training

    def scarce(model, images, config, **rest):  # type: ignore[no-untyped-def]
        if not 0 < config.micro_batch <= 10:
            raise torch.OutOfMemoryError("no more")
        return real(model, images, config, **rest)

    monkeypatch.setattr(rerun, "Training", scarce)
    done = retrain(found.ranked("logistic")[0], tmp_path / "out", seeds=1, device="cpu")
    assert 0 < load_checkpoint(done.folder / "model.pt").config.micro_batch <= 10
    assert done.repeat is not None
    # To the bit or not, the reason is told.
    assert done.repeat.exact or "as the memory was short" in done.repeat.text


def test_what_was_compiled_for_a_gpu_runs_on_a_cpu(
    found: SearchRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found.best.config is not None
    config = dataclasses.replace(found.best.config, execution="compile")
    trial = dataclasses.replace(found.best, config=config)
    assert stored_config(trial, CPU).execution == "compile"  # it was a CPU that it was made on
    gpu = Surroundings(device="NVIDIA H100 80GB HBM3", threads=8, is_gpu=True)
    monkeypatch.setattr(stored, "surroundings", lambda _: gpu)
    assert stored_config(trial, CPU) == dataclasses.replace(config, execution="eager")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": 0}, "seeds must be a whole number of at least 1, but is 0"),
        ({"epochs": 0}, "epochs must be a whole number of at least 1"),
        ({"on": "test"}, "on must be one of train, train\\+val, but is 'test'"),
        ({"device": "abacus"}, "unknown device 'abacus'"),
    ],
)
def test_bad_arguments(
    found: SearchRecord, tmp_path: Path, arguments: dict[str, int | str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        retrain(found.best, tmp_path / "out", **arguments)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_only_complete_trials_and_free_folders(found: SearchRecord, tmp_path: Path) -> None:
    pruned = dataclasses.replace(found.best, state="pruned")
    with pytest.raises(SearchError, match="is pruned, and only complete trials can be trained"):
        retrain(pruned, tmp_path / "out", device="cpu")
    (tmp_path / "precious").mkdir()
    for replace in (False, True):
        with pytest.raises(SearchError, match="exists already"):
            retrain(found.best, tmp_path / "precious", replace=replace, device="cpu")
    (found.folder / SPLIT).unlink()
    with pytest.raises(HpsearchError, match="split"):
        retrain(found.best, tmp_path / "out", device="cpu")
    assert load_search(found.runs).openings == ()
