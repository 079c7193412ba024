"""Exports: whole, believable, recorded."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hpsearch import SearchRecord, StudySpec, export, load_search, search
from hpsearch.data.batches import steps_per_epoch
from hpsearch.data.resident import ResidentImages
from hpsearch.data.sealed import open_test_split
from hpsearch.data.splits import Split, load_split, save_split
from hpsearch.data.store import load_dataset
from hpsearch.engine.records import SPLIT
from hpsearch.errors import CheckpointError, DataError, SearchError
from hpsearch.results.evaluation import restore_model, score
from hpsearch.results.report import report_document
from hpsearch.training.checkpoint import load_checkpoint, save_checkpoint
from hpsearch.training.scores import classification_scores
from hpsearch.training.trainer import evaluate


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> SearchRecord:
    spec = StudySpec(families=("logistic", "mlp"), trials=4, epochs=3, keep=1)
    return search(spec, runs=tmp_path_factory.mktemp("runs"), device="cpu")


@pytest.fixture
def found(searched: SearchRecord, tmp_path: Path) -> SearchRecord:
    """A copy, so that what one test opens or breaks is no other test's."""
    shutil.copytree(searched.runs, tmp_path / "runs")
    return load_search(tmp_path / "runs")


def test_an_export_has_what_it_promises(found: SearchRecord, tmp_path: Path) -> None:
    result = export(found.best, tmp_path / "out", device="cpu")
    split = load_split(found.folder / SPLIT)
    checkpoint = load_checkpoint(result.checkpoint)
    assert checkpoint.config == found.best.config

    # The score, computed a second time by hand from the exported file.
    test = open_test_split(load_dataset("digits"), split)
    images = ResidentImages.of(test, torch.device("cpu"))
    logits = evaluate(restore_model(checkpoint), images, checkpoint.preprocessing, "fp32").logits
    predicted = logits.argmax(dim=1).numpy()
    assert result.test_accuracy == np.mean(predicted == test.labels)

    with result.confusion_csv.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["", *(f"predicted {digit}" for digit in range(10))]
    assert [row[0] for row in rows] == [f"true {digit}" for digit in range(10)]
    matrix = np.array([[int(cell) for cell in row[1:]] for row in rows])
    for true, guess in zip(test.labels, predicted, strict=True):
        matrix[true, guess] -= 1
    assert not matrix.any()

    metrics = json.loads(result.metrics_json.read_text(encoding="utf-8"))
    assert metrics == result.metrics
    assert metrics["test"]["images"] == 360
    low, high = metrics["test"]["accuracy_95"]
    assert low < result.test_accuracy < high
    assert metrics["validation"]["accuracy"] == found.best.val_accuracy
    for path in (result.confusion_png, result.curves_png):
        with Image.open(path) as image:
            assert min(image.size) > 300
    with result.curves_csv.open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == found.best.epochs
    assert result.batches_csv == result.folder / "learning_curves_batches.csv"
    with result.batches_csv.open(encoding="utf-8", newline="") as file:
        batches = list(csv.DictReader(file))
    steps = steps_per_epoch(1077, checkpoint.config.batch_size)
    assert len(batches) == found.best.epochs * steps
    assert (batches[-1]["epoch"], batches[-1]["step"]) == (
        str(found.best.epochs - 1),
        f"{steps - 1}",
    )
    assert metrics["objective"] == {"name": "val_accuracy", "value": found.best.val_accuracy}
    assert metrics["validation"] == {
        "accuracy": found.best.val_accuracy,
        "balanced_accuracy": found.best.val_balanced_accuracy,
        "macro_f1": found.best.val_macro_f1,
        "loss": found.best.val_loss,
    }
    assert {path.name for path in result.folder.iterdir()} == {
        "model.pt",
        "confusion_matrix.png",
        "confusion_matrix.csv",
        "metrics.json",
        "learning_curves.png",
        "learning_curves.csv",
        "learning_curves_batches.csv",
    }


def test_every_opening_of_the_test_split_is_recorded_and_shown(
    found: SearchRecord, tmp_path: Path
) -> None:
    assert report_document(found)["test_openings"] == []
    first = export(found.best, tmp_path / "one", device="cpu")
    second = export(found.ranked("logistic")[0], tmp_path / "two", device="cpu")
    assert (first.times_opened, second.times_opened) == (1, 2)
    assert second.metrics["test_split_opened"] == 2
    openings = report_document(load_search(found.runs))["test_openings"]
    assert [row["trial"] for row in openings] == [
        found.best.name,
        found.ranked("logistic")[0].name,
    ]


def test_an_export_is_not_overwritten_unless_asked(found: SearchRecord, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(found.best, out, device="cpu")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(SearchError, match="--force"):
        export(found.best, out, device="cpu")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert len(load_search(found.runs).openings) == 1
    export(found.ranked("logistic")[0], out, replace=True, device="cpu")
    assert json.loads((out / "metrics.json").read_text())["trial"].startswith("logistic")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "runs"]


def test_a_folder_that_is_no_export_is_never_replaced(found: SearchRecord, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years of work")
    with pytest.raises(SearchError, match="exists already"):
        export(found.best, tmp_path / "precious", replace=True, device="cpu")
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "years of work"


def test_an_export_that_fails_leaves_nothing(found: SearchRecord, tmp_path: Path) -> None:
    history = found.best.folder / "history.csv"
    header = history.read_text().splitlines(keepends=True)[0]
    for content in ("", header):
        history.write_text(content)
        with pytest.raises(CheckpointError, match=r"history\.csv"):
            export(found.best, tmp_path / "out", device="cpu")
    history.unlink()
    with pytest.raises(CheckpointError, match=r"history\.csv"):
        export(found.best, tmp_path / "out", device="cpu")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(SearchError, match="link"):
        export(found.best, tmp_path / "link", device="cpu")
    assert load_search(found.runs).openings == ()


def test_an_altered_checkpoint_is_refused_before_the_test_split_is_opened(
    found: SearchRecord, tmp_path: Path
) -> None:
    path = found.best.checkpoint
    assert path is not None
    content = torch.load(path, weights_only=True)
    next(iter(content["state"].values())).view(-1)[0] += 1.0
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="SHA-256"):
        export(found.best, tmp_path / "out", device="cpu")
    assert load_search(found.runs).openings == ()


def test_a_checkpoint_of_another_trial_is_refused(tmp_path: Path) -> None:
    """Also one of the same family that is nearly as good."""
    spec = StudySpec(families=("logistic",), trials=3, epochs=2)
    found = search(spec, runs=tmp_path / "runs", device="cpu")
    best, other = found.ranked()[:2]
    assert best.checkpoint is not None
    assert other.checkpoint is not None
    shutil.copyfile(other.checkpoint, best.checkpoint)
    with pytest.raises(CheckpointError, match=f"not the model .* of trial {other.name}"):
        export(best, tmp_path / "out", device="cpu")
    assert load_search(found.runs).openings == ()


def test_a_model_that_does_not_do_what_was_recorded_is_refused(
    found: SearchRecord, tmp_path: Path
) -> None:
    """The right labels and a valid hash around the wrong weights."""
    path = found.best.checkpoint
    assert path is not None
    checkpoint = load_checkpoint(path)
    state = {name: torch.zeros_like(tensor) for name, tensor in checkpoint.state.items()}
    save_checkpoint(path, dataclasses.replace(checkpoint, state=state))
    with pytest.raises(CheckpointError, match="validation accuracy of 0"):
        export(found.best, tmp_path / "out", device="cpu")
    assert load_search(found.runs).openings == ()


def test_a_trial_without_checkpoint_says_so(found: SearchRecord, tmp_path: Path) -> None:
    dropped = next(trial for trial in found.trials if trial.checkpoint is None)
    assert dropped.state == "complete"
    with pytest.raises(CheckpointError, match=f"{dropped.name}.*--keep"):
        export(dropped, tmp_path / "out", device="cpu")
    pruned = dataclasses.replace(dropped, state="pruned")
    with pytest.raises(CheckpointError, match=f"{dropped.name}.*pruned, and only complete"):
        export(pruned, tmp_path / "out", device="cpu")


def test_another_split_is_refused(found: SearchRecord, tmp_path: Path) -> None:
    path = found.folder / SPLIT
    split = load_split(path)
    save_split(path, Split(split.train, split.test, split.val))
    with pytest.raises(DataError, match="not the split"):
        export(found.best, tmp_path / "out", device="cpu")
    assert load_search(found.runs).openings == ()


def test_data_that_changed_since_the_search_is_refused(tmp_path: Path) -> None:
    digits = load_dataset("digits")
    images = digits.images.copy()
    np.savez(tmp_path / "mine.npz", images=images, labels=digits.labels)
    spec = StudySpec(data=str(tmp_path / "mine.npz"), families=("logistic",), trials=1, epochs=1)
    best = search(spec, runs=tmp_path / "runs", device="cpu").best
    images[3, 3, 3] ^= 255
    np.savez(tmp_path / "mine.npz", images=images, labels=digits.labels)
    with pytest.raises(DataError, match=r"changed since: .*mine\.npz"):
        export(best, tmp_path / "out", device="cpu")
    assert load_search(tmp_path / "runs").openings == ()


def test_data_is_found_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digits = load_dataset("digits")
    np.savez(tmp_path / "mine.npz", images=digits.images, labels=digits.labels)
    monkeypatch.chdir(tmp_path)
    spec = StudySpec(data="mine.npz", families=("logistic",), trials=1, epochs=1)
    search(spec, runs="runs", device="cpu")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert export(load_search("../runs").best, "out", device="cpu").checkpoint.is_file()


def test_scores_by_hand() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    logits = torch.full((6, 3), -5.0)
    for row, guess in enumerate([0, 0, 1, 1, 1, 0]):
        logits[row, guess] = 5.0
    scores = score(logits, labels, ("a", "b", "c"))
    assert scores.matrix.tolist() == [[2, 1, 0], [0, 2, 0], [1, 0, 0]]
    assert scores.metrics["accuracy"] == pytest.approx(4 / 6)
    assert scores.metrics["errors"] == 2
    assert scores.metrics["balanced_accuracy"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert scores.metrics["classes"]["c"] == {
        "precision": 0.0,
        "recall": 0.0,
        "f1": 0.0,
        "support": 1,
    }
    # Wilson's interval for 4 of 6, from its formula.
    z, p, n = 1.959964, 4 / 6, 6
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert scores.metrics["accuracy_95"] == pytest.approx([centre - half, centre + half], abs=1e-5)


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_scores_are_those_of_the_training() -> None:
    """Also where a class is absent: of the two definitions in use, one is meant everywhere."""
    labels = np.array([0, 0, 0, 1, 1])
    logits = torch.full((5, 4), -5.0)
    predicted = [0, 0, 1, 1, 2]
    for row, guess in enumerate(predicted):
        logits[row, guess] = 5.0
    metrics = score(logits, labels, ("a", "b", "c", "d")).metrics
    trained = classification_scores(torch.from_numpy(labels), torch.tensor(predicted), 4)
    assert metrics["accuracy"] == trained.accuracy
    assert metrics["balanced_accuracy"] == pytest.approx(trained.balanced_accuracy)
    assert metrics["macro_f1"] == pytest.approx(trained.macro_f1)


def test_a_report_is_the_record(found: SearchRecord) -> None:
    document = report_document(found, best=2)
    assert json.loads(json.dumps(document)) == document
    assert {row["family"] for row in document["leaderboard"]} == {"logistic", "mlp"}
    assert document["leaderboard"][0]["best"]["trial"] == found.best.name
    assert [row["trial"] for row in document["best_trials"]] == [
        trial.name for trial in found.ranked()[:2]
    ]
    assert document["trials"] == {"asked": 4, "finished": 4}
    assert document["data"]["counts"] == {"train": 1077, "val": 360, "test": 360}
