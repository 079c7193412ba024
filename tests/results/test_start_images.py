"""Weights of one's own can have seen the test images of the search that starts from them."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from handmade import colour_checkpoint, write_export

from hpsearch import StudySpec, compare, evaluate, export, load_search, retrain, search
from hpsearch.config import WeightsConfig
from hpsearch.data.dataset import NO_PART
from hpsearch.data.known_images import CHOSEN, HASHES, TRAINED, StartImages, write_known_images
from hpsearch.data.spec import DataSpec
from hpsearch.data.splits import Split, SplitSpec, load_split, make_split
from hpsearch.data.store import load_dataset
from hpsearch.engine.events import Event, SearchStarted
from hpsearch.engine.place import SPLIT
from hpsearch.families._start_images import start_overlap, start_warnings
from hpsearch.families._statefile import file_sha256
from hpsearch.results.export import Export
from hpsearch.results.reports.document import search_document
from hpsearch.training.checkpoint import save_checkpoint


@pytest.fixture
def spec(tmp_path: Path) -> DataSpec:
    """Twelve images of noise, with colours, in two classes."""
    images = np.random.default_rng(0).integers(0, 256, (12, 9, 6, 3), dtype=np.uint8)
    np.savez(tmp_path / "noise.npz", images=images, labels=np.arange(12) % 2)
    return DataSpec(source=str(tmp_path / "noise.npz"))


def made(
    folder: Path,
    spec: DataSpec,
    split: Split,
    *,
    retrained: str = "train",
    weights: WeightsConfig | None = None,
    start: StartImages | None = None,
) -> WeightsConfig:
    """An export of a model of 4x4 pixels that was made with the data; as weights."""
    checkpoint = colour_checkpoint()
    config = dataclasses.replace(checkpoint.config, weights=weights)
    origin = {**checkpoint.origin, "retrained": retrained}
    write_export(folder, dataclasses.replace(checkpoint, config=config, origin=origin))
    dataset = load_dataset(dataclasses.replace(spec, size=(4, 4)))
    write_known_images(folder / HASHES, dataset, split, start)
    return WeightsConfig(source=str(folder), sha256=file_sha256(folder / "model.pt"))


def rows(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


def uses(weights: WeightsConfig, spec: DataSpec) -> list[int]:
    found = start_overlap(weights, load_dataset(spec), spec)
    assert found.unknown == ()
    return found.uses.tolist()


FIRST = Split(rows(0, 1), rows(2), rows(3, 4))
SEEN_BY_FIRST = [TRAINED, TRAINED, CHOSEN] + 9 * [NO_PART]


def test_images_are_found_in_whatever_size_they_are_searched(
    spec: DataSpec, tmp_path: Path
) -> None:
    weights = made(tmp_path / "first", spec, FIRST)
    other = dataclasses.replace(spec, size=(12, 5), fit="pad", gray=True)
    assert uses(weights, spec) == uses(weights, other) == SEEN_BY_FIRST
    file = WeightsConfig(source=str(tmp_path / "first" / "model.pt"))
    assert uses(file, spec) == SEEN_BY_FIRST
    both = made(tmp_path / "both", spec, FIRST, retrained="train+val")
    assert uses(both, spec) == 3 * [TRAINED] + 9 * [NO_PART]


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "of an older version"])
def test_what_the_weights_of_the_weights_had_seen_is_seen(
    spec: DataSpec, tmp_path: Path, kept: bool
) -> None:
    first = made(tmp_path / "first", spec, FIRST)
    before = start_overlap(first, load_dataset(spec), spec).images
    split = Split(rows(2, 5), rows(6), rows(0))
    second = made(tmp_path / "second", spec, split, weights=first, start=before if kept else None)
    if kept:
        shutil.rmtree(tmp_path / "first")
    expected = [TRAINED] * 3 + [NO_PART] * 2 + [TRAINED, CHOSEN] + 5 * [NO_PART]
    assert uses(second, spec) == expected
    # A third one has it from the second.
    third = made(
        tmp_path / "third",
        spec,
        Split(rows(7), rows(8), rows(9)),
        weights=second,
        start=start_overlap(second, load_dataset(spec), spec).images,
    )
    shutil.rmtree(tmp_path / "second")
    assert uses(third, spec) == [*expected[:7], TRAINED, CHOSEN] + 3 * [NO_PART]


def test_what_cannot_be_told_is_said(spec: DataSpec, tmp_path: Path) -> None:
    dataset, split = load_dataset(spec), make_split(load_dataset(spec), SplitSpec())
    weights = made(tmp_path / "first", spec, FIRST)

    def warnings() -> tuple[str, ...]:
        return start_warnings([weights], dataset, Split(rows(5), rows(6), rows(7)), spec)

    assert warnings() == ()
    (tmp_path / "first" / HASHES).rename(tmp_path / "hashes")
    (warning,) = warnings()
    assert "weights first had seen more of these images cannot be told" in warning
    assert "no hashes" in warning
    (tmp_path / "first" / HASHES).write_bytes(b"nothing")
    assert "is damaged" in warnings()[0]
    (tmp_path / "hashes").replace(tmp_path / "first" / HASHES)
    (tmp_path / "first" / "config.json").write_text("{}")
    assert "no config.json that can be read" in warnings()[0]
    save_checkpoint(tmp_path / "first" / "model.pt", colour_checkpoint(side=3))
    assert "holds another model now" in warnings()[0]
    shutil.rmtree(tmp_path / "first")
    assert "is not there any more" in warnings()[0]
    # What cannot be told of one goes on to those that start from it.
    before = start_overlap(weights, dataset, spec).images
    later = made(tmp_path / "later", spec, FIRST, weights=weights, start=before)
    assert "first is not there any more" in start_warnings([later], dataset, split, spec)[-1]
    assert start_warnings([WeightsConfig(source="imagenet")], dataset, split, spec) == ()


def test_a_search_is_warned_of_images_that_its_weights_had_seen(
    spec: DataSpec, tmp_path: Path
) -> None:
    dataset, weights = load_dataset(spec), made(tmp_path / "first", spec, FIRST)
    # Its own split: the validation images are those that the weights were chosen by.
    assert start_warnings([weights], dataset, FIRST, spec) == ()
    other = Split(rows(3, 4), rows(0, 5), rows(1, 2, 6))
    (warning,) = start_warnings([weights, weights], dataset, other, spec)  # of two families
    assert warning.startswith(
        "the weights first had seen 2 of the 3 test images and 1 of the 2 validation images: scores"
    )


@pytest.fixture(scope="module")
def transferred(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Export]:
    """A search on another split of the digits that starts from an export; and that export."""
    folder = tmp_path_factory.mktemp("transferred")
    start = StudySpec(name="start", families=("mlp",), trials=1, epochs=2, artifacts="none")
    given = export(search(start, runs=folder / "runs", device="cpu").best, folder / "start")
    moved = dataclasses.replace(
        start,
        name="moved",
        split=SplitSpec(seed=5),
        overrides={"weights": str(given.folder)},
    )
    told: list[Event] = []
    search(moved, runs=folder / "runs", device="cpu", workers=0, watch=told.append)
    (started,) = [event for event in told if isinstance(event, SearchStarted)]
    assert [text[:56] for text in started.warnings if "weights" in text] == [
        "the weights start had seen 296 of the 360 test images an"
    ]
    return folder, given


def test_a_test_score_is_given_without_images_that_the_weights_had_seen(
    transferred: tuple[Path, Export], tmp_path: Path
) -> None:
    folder, _ = transferred
    record = load_search(folder / "runs", "moved")
    result = export(record.best, tmp_path / "out", device="cpu")
    digits = load_dataset("digits")
    splits = [load_split(folder / "runs" / name / SPLIT) for name in ("start", "moved")]
    was, now = (split.membership(len(digits)) for split in splits)
    trained, chosen = (int(((now == 2) & (was == part)).sum()) for part in (0, 1))
    metrics = result.metrics
    assert metrics["start"] == {
        "weights": "start",
        "trained_on": trained,
        "chosen_by": chosen,
        "doubts": [],
    }
    left = 360 - trained - chosen
    assert 0 < left < 360
    assert metrics["test"]["images"] == 360
    assert metrics["test_of_new"]["images"] == left

    # The score of the others, by hand from the predictions.
    table = np.genfromtxt(result.predictions_csv, delimiter=",", skip_header=1, dtype=str)
    new = was[now == 2] == 2
    right = table[:, 1] == table[:, 2]
    assert metrics["test_of_new"]["accuracy"] == pytest.approx(right[new].mean())

    sentence = f"had seen {trained + chosen} of the 360 test images"
    assert any(sentence in note for note in result.notes)
    headline = f"{100 * metrics['test_of_new']['accuracy']:.2f} %"
    for path in (result.card, result.report_html):
        text = path.read_text(encoding="utf-8")
        assert sentence in text
        first = text.index(headline)
        assert first < text.index(f"{100 * metrics['test']['accuracy']:.2f} %", first + 1)
    document = search_document(load_search(folder / "runs", "moved"))
    assert document["best_trials"][0]["test"]["new"]["images"] == left

    # Of all digits, only those are new that neither search trained on or chose by.
    evaluated = evaluate(result.folder, "digits", device="cpu")
    assert evaluated.new is not None
    assert evaluated.new.metrics["images"] == int(((was == 2) & (now == 2)).sum())
    assert "the weights had seen that it started from (start)" in evaluated.warnings[0]
    compared = compare(result.folder, result.folder)
    assert len(compared.warnings) == 1  # one folder, named twice
    assert f"had seen {trained + chosen} of the images" in compared.warnings[0]


def test_retraining_gives_it_over_the_seeds(
    transferred: tuple[Path, Export], tmp_path: Path
) -> None:
    folder, _ = transferred
    record = load_search(folder / "runs", "moved")
    done = retrain(record.best, tmp_path / "again", seeds=2, device="cpu")
    new = done.metrics["test_of_new"]
    scores = [seed.new_scores["accuracy"] for seed in done.seeds]
    assert done.accuracy_of_new is not None
    assert done.accuracy_of_new.mean == pytest.approx(np.mean(scores))
    assert new["accuracy"] == done.kept.new_scores["accuracy"]
    assert any("had seen" in note for note in done.notes)
    details = load_search(folder / "runs", "moved").results[-1].details["new"]
    assert (details["images"], details["mean"]) == (new["images"], done.accuracy_of_new.mean)
    document = json.loads((done.folder / "retrain.json").read_text(encoding="utf-8"))
    assert document["of_new"] == done.accuracy_of_new.to_dict()


def test_from_the_same_split_nothing_was_seen(
    transferred: tuple[Path, Export], tmp_path: Path
) -> None:
    _, given = transferred
    spec = StudySpec(
        name="same",
        families=("mlp",),
        trials=1,
        epochs=1,
        artifacts="none",
        overrides={"weights": str(given.folder)},
    )
    best = search(spec, runs=tmp_path / "runs", device="cpu").best
    result = export(best, tmp_path / "out", device="cpu")
    assert result.metrics["start"] == {
        "weights": "start",
        "trained_on": 0,
        "chosen_by": 0,
        "doubts": [],
    }
    assert result.metrics["test_of_new"] is None
    assert result.notes == ()
    # Whoever starts from it cannot do without what its own start had seen.
    (warning,) = start_warnings(
        [WeightsConfig(source=str(result.folder))],
        load_dataset("digits"),
        make_split(load_dataset("digits"), SplitSpec(seed=5)),
        DataSpec(),
    )
    assert "weights out had seen" in warning
