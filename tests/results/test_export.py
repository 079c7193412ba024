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

from hpsearch import SearchRecord, StudySpec, TrainConfig, export, load_search, retrain, search
from hpsearch.data.batches import steps_per_epoch
from hpsearch.data.checks.source import check_source
from hpsearch.data.known_images import read_known_images
from hpsearch.data.preprocessing import Preprocessing
from hpsearch.data.resident import ResidentImages
from hpsearch.data.sealed import open_test_split
from hpsearch.data.spec import DataSpec
from hpsearch.data.splits import Split, SplitSpec, load_split, save_split
from hpsearch.data.store import load_dataset
from hpsearch.engine.place import SPLIT
from hpsearch.errors import CheckpointError, DataError, SearchError
from hpsearch.families import build_model
from hpsearch.results.inference import restore_model
from hpsearch.results.reports.document import search_document
from hpsearch.results.reports.page import report_page
from hpsearch.results.source import SearchData
from hpsearch.training.checkpoint import load_checkpoint, save_checkpoint
from hpsearch.training.evaluation import evaluate


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> SearchRecord:
    spec = StudySpec(families=("logistic", "mlp"), trials=4, epochs=3, keep=1, artifacts="none")
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
    logits = evaluate(
        restore_model(checkpoint), images, checkpoint.preprocessing, "fp32", "channels_last"
    ).logits
    predicted = logits.argmax(dim=1).numpy()
    assert result.test_accuracy == np.mean(predicted == test.labels)

    known = read_known_images(result.folder)
    assert known is not None
    assert known.parts_of(load_dataset("digits")).tolist() == split.membership(1797).tolist()

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
        "images": 360,
        "accuracy_95": metrics["validation"]["accuracy_95"],
        "interval": "Wilson",
    }
    low, high = metrics["validation"]["accuracy_95"]
    assert low < found.best.val_accuracy < high
    assert result.notes == (
        "The best of 4 trials on 360 validation images is expected to look better there than it "
        "is: it was chosen by them.",
    )
    assert (metrics["start"], metrics["test_of_new"]) == (None, None)
    assert {path.name for path in result.folder.iterdir()} == {
        "model.pt",
        "model.pt2",
        "config.json",
        "image_hashes.npz",
        "confusion_matrix.png",
        "confusion_matrix.csv",
        "metrics.json",
        "predictions.csv",
        "mistakes.png",
        "learning_curves.png",
        "learning_curves.csv",
        "learning_curves_batches.csv",
        "report.html",
        "README.md",
    }
    assert result.onnx is None
    card = (result.folder / "README.md").read_text(encoding="utf-8")
    for path in result.folder.iterdir():
        assert path.name == "README.md" or f"\n- `{path.name}`: " in card


def test_the_configuration_is_all_it_takes_to_rebuild_the_model(
    found: SearchRecord, tmp_path: Path
) -> None:
    result = export(found.best, tmp_path / "out", device="cpu")
    document = json.loads(result.config_json.read_text(encoding="utf-8"))
    checkpoint = load_checkpoint(result.checkpoint)
    assert TrainConfig.from_dict(document["config"]) == checkpoint.config
    assert Preprocessing.from_dict(document["preprocessing"]) == checkpoint.preprocessing
    assert tuple(document["classes"]) == checkpoint.classes
    assert document["images"] == {"height": 8, "width": 8, "channels": 1, "fit": "crop"}
    assert document["origin"]["data_fingerprint"] == found.fingerprints["data"]
    assert document["origin"]["split_fingerprint"] == found.fingerprints["split"]
    assert document["versions"] == dict(checkpoint.versions)
    model = build_model(
        TrainConfig.from_dict(document["config"]),
        Preprocessing.from_dict(document["preprocessing"]).shape,
        len(document["classes"]),
    )
    model.load_state_dict(dict(checkpoint.state))


def test_page_and_card_say_what_the_metrics_say(found: SearchRecord, tmp_path: Path) -> None:
    result = export(found.best, tmp_path / "out", device="cpu", onnx=True)
    score, test = f"{100 * result.test_accuracy:.2f} %", result.metrics["test"]
    low, high = (f"{100 * end:.2f} %" for end in test["accuracy_95"])
    for path in (result.report_html, result.card):
        text = path.read_text(encoding="utf-8")
        for part in (score, low, high, f"{test['errors']} of 360", found.best.name, "digits"):
            assert part in text, part
        assert "for the first time" in text
    page = result.report_html.read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 3  # matrix, mistakes, curves
    assert "http" not in page.replace("http-equiv", "")  # it needs no network
    card = result.card.read_text(encoding="utf-8")
    for path in result.folder.iterdir():
        if path.suffix != ".md" and path.name not in (
            "confusion_matrix.png",
            "learning_curves.png",
        ):
            assert f"`{path.name}`" in card
    assert result.onnx is not None
    again = export(found.best, tmp_path / "again", device="cpu")
    for path in (again.report_html, again.card):
        assert "opened 2 times" in path.read_text(encoding="utf-8")


def test_what_a_look_gave_is_recorded(found: SearchRecord, tmp_path: Path) -> None:
    exported = export(found.best, tmp_path / "out", device="cpu")
    (result,) = load_search(found.runs).results
    assert (result.trial, result.kind) == (found.best.name, "export")
    assert result.accuracy == exported.test_accuracy
    assert Path(result.folder) == tmp_path / "out"
    assert result.details["accuracy_95"] == exported.metrics["test"]["accuracy_95"]


def test_a_model_without_portable_form_is_exported_with_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A family of the user's own, whose Python looks at the pixels."""
    (tmp_path / "looks.py").write_text(_LOOKS, encoding="utf-8")
    spec = StudySpec(families=(str(tmp_path / "looks.py"),), trials=1, epochs=1)
    best = search(spec, runs=tmp_path / "runs", device="cpu").best
    result = export(best, tmp_path / "out", device="cpu")
    assert result.program is None
    (note,) = result.notes
    assert "model.pt2" in note
    assert "looks" in note
    for path in (result.report_html, result.card, result.metrics_json):
        assert "there is no model.pt2" in path.read_text(encoding="utf-8").replace("\\", "")
    with pytest.raises(CheckpointError, match=r"looks"):
        export(best, tmp_path / "onnx", device="cpu", onnx=True)
    assert not (tmp_path / "onnx").exists()
    assert len(load_search(tmp_path / "runs").openings) == 1


_LOOKS = """
from torch import nn
from hpsearch import Family, StagedModel, ask_start, suggest_training

class Looks(nn.Module):
    def __init__(self, features, classes):
        super().__init__()
        self.linear = nn.Linear(features, classes)

    def forward(self, images):
        flat = images.flatten(1)
        if flat.sum().item() > 1e9:
            flat = -flat
        return self.linear(flat)

def suggest(s, shape):
    start = ask_start(s, shape)
    return suggest_training(s, start, options={})

def build(options, shape, n_classes):
    return StagedModel({"head": Looks(shape.height * shape.width * shape.channels, n_classes)})

FAMILY = Family(summary="looks", suggest=suggest, build=build, defaults=({"lr": 0.01},))
"""


def test_every_opening_of_the_test_split_is_recorded_and_shown(
    found: SearchRecord, tmp_path: Path
) -> None:
    assert search_document(found)["test_openings"] == []
    first = export(found.best, tmp_path / "one", device="cpu")
    second = export(found.ranked("logistic")[0], tmp_path / "two", device="cpu")
    assert (first.times_opened, second.times_opened) == (1, 2)
    assert second.metrics["test_split_opened"] == 2
    openings = search_document(load_search(found.runs))["test_openings"]
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


def test_what_is_said_of_the_data_is_found_before_the_look_at_the_test_images(
    found: SearchRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: SearchData) -> dict[str, object]:
        raise DataError("the images went away")

    monkeypatch.setattr(SearchData, "facts", broken)
    with pytest.raises(DataError, match="went away"):
        export(found.best, tmp_path / "out", device="cpu")
    with pytest.raises(DataError, match="went away"):
        retrain(found.best, tmp_path / "out", seeds=1, device="cpu")
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
    spec = StudySpec(families=("logistic",), trials=3, epochs=2, artifacts="none")
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
    with pytest.raises(
        CheckpointError, match=f"--keep.*hpsearch retrain digits --trial {dropped.name}$"
    ):
        export(dropped, tmp_path / "out", device="cpu")
    pruned = dataclasses.replace(dropped, state="pruned")
    with pytest.raises(CheckpointError, match=f"{dropped.name}.*pruned, and only complete"):
        export(pruned, tmp_path / "out", device="cpu")
    running = dataclasses.replace(found.best, state="running")  # one that has a file already
    with pytest.raises(CheckpointError, match="is running, and only complete"):
        export(running, tmp_path / "out", device="cpu")


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
    spec = StudySpec(
        data=str(tmp_path / "mine.npz"),
        families=("logistic",),
        trials=1,
        epochs=1,
        artifacts="none",
    )
    best = search(spec, runs=tmp_path / "runs", device="cpu").best
    images[3, 3, 3] ^= 255
    np.savez(tmp_path / "mine.npz", images=images, labels=digits.labels)
    with pytest.raises(DataError, match=r"changed since: .*mine\.npz"):
        export(best, tmp_path / "out", device="cpu")
    assert load_search(tmp_path / "runs").openings == ()


def test_what_is_wrong_with_the_data_is_in_card_and_pages(tmp_path: Path) -> None:
    digits = load_dataset("digits")
    labels = digits.labels[:300].copy()
    images = digits.images[:300].copy()
    images[1] = images[0]
    labels[:2] = (3, 4)
    np.savez(tmp_path / "few.npz", images=images, labels=labels)
    spec = StudySpec(
        data=str(tmp_path / "few.npz"), families=("logistic",), trials=1, epochs=1, artifacts="none"
    )
    record = search(spec, runs=tmp_path / "runs", device="cpu")
    result = export(record.best, tmp_path / "out", device="cpu")
    errors = result.metrics["data"]["errors"]
    assert any("label" in error for error in errors)
    card = result.card.read_text(encoding="utf-8")
    assert card.count("- wrong with the data: ") == len(errors)
    assert "Wrong with the data" in result.report_html.read_text(encoding="utf-8")
    # The report of the search has it once the data was checked.
    assert "wrong with the data" not in report_page(record)
    check_source(DataSpec(source=str(tmp_path / "few.npz")), spec.split)
    assert search_document(record)["data"]["errors"] == errors
    assert "wrong with the data" in report_page(record)


def test_data_is_found_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digits = load_dataset("digits")
    np.savez(tmp_path / "mine.npz", images=digits.images, labels=digits.labels)
    monkeypatch.chdir(tmp_path)
    spec = StudySpec(data="mine.npz", families=("logistic",), trials=1, epochs=1, artifacts="none")
    search(spec, runs="runs", device="cpu")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert export(load_search("../runs").best, "out", device="cpu").checkpoint.is_file()


def test_a_report_is_the_record(found: SearchRecord) -> None:
    document = search_document(found, best=2)
    assert json.loads(json.dumps(document)) == document
    assert {row["family"] for row in document["leaderboard"]} == {"logistic", "mlp"}
    assert document["leaderboard"][0]["best"]["trial"] == found.best.name
    assert [row["trial"] for row in document["best_trials"]] == [
        trial.name for trial in found.ranked()[:2]
    ]
    assert document["trials"] == {"asked": 4, "finished": 4}
    assert document["data"]["counts"] == {"train": 1077, "val": 360, "test": 360}


def test_whoever_looked_at_a_test_split_has_seen_it_under_every_name(
    found: SearchRecord, tmp_path: Path
) -> None:
    export(found.best, tmp_path / "one", device="cpu")
    spec = StudySpec(name="again", families=("logistic",), trials=1, epochs=1, artifacts="none")
    again = search(spec, runs=found.runs, device="cpu")
    (opening,) = again.openings
    assert (opening.search, opening.trial) == ("digits", found.best.name)
    assert again.results == ()
    result = export(again.best, tmp_path / "two", device="cpu")
    assert result.times_opened == 2
    assert "opened 2 times" in result.report_html.read_text(encoding="utf-8")
    assert [o.search for o in load_search(found.runs, "digits").openings] == ["digits", "again"]
    # In another size they are the same images, too.
    larger = dataclasses.replace(spec, name="larger", data=DataSpec("digits", size=(16, 16)))
    assert len(search(larger, runs=found.runs, device="cpu").openings) == 2
    # Another split is another matter.
    other = dataclasses.replace(spec, name="other", split=SplitSpec(seed=1))
    assert search(other, runs=found.runs, device="cpu").openings == ()


def test_data_that_moved_are_found_again_after_the_search_was_told(tmp_path: Path) -> None:
    digits = load_dataset("digits")
    old, new = tmp_path / "old.npz", tmp_path / "new.npz"
    np.savez(old, images=digits.images, labels=digits.labels)
    spec = StudySpec(
        name="mine", data=str(old), families=("logistic",), trials=1, epochs=1, artifacts="none"
    )
    best = search(spec, runs=tmp_path / "runs", device="cpu").best
    old.rename(new)
    with pytest.raises(DataError, match="--name mine and --data where they are now"):
        export(best, tmp_path / "out", device="cpu")
    search(dataclasses.replace(spec, data=str(new)), runs=tmp_path / "runs", device="cpu")
    assert export(best, tmp_path / "out", device="cpu").checkpoint.is_file()
