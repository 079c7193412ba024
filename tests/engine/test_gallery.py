"""What the dashboard shows beside numbers: each trial's history and pictures, and those of the
best, as they are; and nothing that goes wrong with them fails a trial.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import sqlite3
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import faults
import numpy as np
import optuna
import pytest
from optuna.artifacts import get_all_artifact_meta
from PIL import Image

from hpsearch import SearchRecord, StudySpec, TrialRecord, export, load_search, search
from hpsearch.data.dataset import ImageDataset, ImagePart
from hpsearch.data.splits import load_split
from hpsearch.engine import gallery
from hpsearch.engine import trial as trial_module
from hpsearch.engine.artifacts import ArtifactFiles
from hpsearch.engine.database import open_storage
from hpsearch.engine.events import EpochFinished, Event
from hpsearch.engine.gallery import Gallery
from hpsearch.engine.pictures import CURVES, PICTURES
from hpsearch.engine.place import DATABASE, HISTORY, SPLIT, VALIDATION, Place
from hpsearch.errors import NonFiniteLossError
from hpsearch.figures import confusion, curves, mistakes
from hpsearch.training.checkpoint import load_checkpoint
from hpsearch.training.epoch import EpochResult
from hpsearch.training.history import read_history
from hpsearch.training.trainer import Training
from hpsearch.training.validation import read_validation

SPEC = StudySpec(
    families=("logistic", "mlp"),
    trials=4,
    epochs=2,
    seed=1,
    precision="fp32",  # not measured: other processes may be running
    memory_format="channels_last",
    sampler="random",
    pruner="none",
    overrides={"mlp.width": 16, "layers": 1, "batch_size": 64},
)
OLD = {f"best_{CURVES}"}
BEST = {f"best_{name}" for name in PICTURES}


def study_of(record: SearchRecord, family: str) -> optuna.Study:
    return optuna.load_study(
        study_name=f"{record.name}/{family}", storage=open_storage(record.place, write=True)
    )


def attached(record: SearchRecord, owner: optuna.Study | TrialRecord) -> dict[str, bytes]:
    """The names and contents of what a study or a trial carries."""
    if isinstance(owner, TrialRecord):
        study = study_of(record, owner.family)
        rows = get_all_artifact_meta(study.trials[owner.number], storage=study._storage)
    else:
        rows = get_all_artifact_meta(owner)
    assert len({row.filename for row in rows}) == len(rows), "one is there twice"
    found = {}
    for row in rows:
        with ArtifactFiles(record.place.artifacts).open_reader(row.artifact_id) as file:
            found[row.filename] = file.read()
    return found


def files_in(place: Place) -> list[str]:
    return sorted(path.name for path in place.artifacts.iterdir())


def ids_in(record: SearchRecord) -> list[str]:
    """All artifacts that the database knows of."""
    ids = []
    for family in record.families:
        study = study_of(record, family)
        rows = get_all_artifact_meta(study)
        for trial in study.trials:
            rows += get_all_artifact_meta(trial, storage=study._storage)
        ids += [row.artifact_id for row in rows]
    return sorted(ids)


def is_picture(content: bytes) -> bool:
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        shades = np.asarray(image.convert("L"))
    return image.format == "PNG" and min(image.size) > 200 and len(np.unique(shades)) > 50


def val_part(record: SearchRecord, digits: ImageDataset) -> ImagePart:
    return digits.part(load_split(record.folder / SPLIT).val)


def check_histories(record: SearchRecord) -> None:
    for trial in record.trials:
        if trial.state == "waiting":
            continue
        content = attached(record, trial)[HISTORY]
        assert content == (trial.folder / HISTORY).read_bytes()
        rows = list(csv.DictReader(io.StringIO(content.decode())))
        assert [int(row["epoch"]) for row in rows] == list(range(trial.epochs))
        best = next(row for row in rows if int(row["epoch"]) == trial.best_epoch)
        assert float(best["val_accuracy"]) == trial.val_accuracy


def check_leader(record: SearchRecord, tmp_path: Path) -> None:
    best = record.best
    found = attached(record, study_of(record, best.family))
    assert set(found) == BEST | {"best_checkpoint.pt"}
    assert all(is_picture(found[name]) for name in BEST)
    (tmp_path / "best.pt").write_bytes(found["best_checkpoint.pt"])
    checkpoint = load_checkpoint(tmp_path / "best.pt")
    assert checkpoint.origin["trial"] == best.name
    assert checkpoint.metrics["epoch"] == best.best_epoch


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> SearchRecord:
    return search(SPEC, runs=tmp_path_factory.mktemp("runs"), device="cpu")


class TestAShortSearch:
    def test_each_trial_has_its_history_and_nothing_more(self, record: SearchRecord) -> None:
        check_histories(record)
        assert all(set(attached(record, trial)) == {HISTORY} for trial in record.trials)

    def test_only_the_best_of_all_has_pictures(self, record: SearchRecord, tmp_path: Path) -> None:
        check_leader(record, tmp_path)
        (other,) = set(record.families) - {record.best.family}
        assert attached(record, study_of(record, other)) == {}  # a minute would pay for them

    def test_files_and_metadata_belong_together(self, record: SearchRecord) -> None:
        assert files_in(record.place) == ids_in(record)

    def test_history_and_checkpoint_take_no_room(self, record: SearchRecord) -> None:
        taken = [path for path in record.place.artifacts.iterdir() if path.stat().st_nlink > 1]
        assert len(taken) == len(record.trials) + 1

    def test_predictions_of_the_validation_images_are_those_of_the_best_epoch(
        self, record: SearchRecord, digits: ImageDataset
    ) -> None:
        labels = val_part(record, digits).labels
        for trial in record.trials:
            made = read_validation(trial.folder / VALIDATION)
            assert made.epoch == trial.best_epoch
            assert (made.predicted == labels).mean() == pytest.approx(trial.val_accuracy)
            assert ((made.confidence > 0) & (made.confidence <= 1)).all()

    def test_the_table_is_one_to_read(self, record: SearchRecord) -> None:
        for trial in record.trials:
            frozen = study_of(record, trial.family).trials[trial.number]
            texts = {key: str(value) for key, value in frozen.user_attrs.items()}
            assert max(map(len, texts.values())) < 40
            assert not {"config", "setting", "values"} & set(texts)
            assert trial.device in ("cpu (1 thread)", "cpu (2 threads)")
            assert trial.host
            assert trial.peak_memory is None or 50 < trial.peak_memory < 20_000

    def test_what_was_taken_up_again_has_no_doubles(
        self, record: SearchRecord, tmp_path: Path
    ) -> None:
        """The process ends between the upload and the end of the trial."""
        ends = 0

        class Killed(BaseException):
            pass

        def dies(*_: Any, **__: Any) -> None:
            nonlocal ends
            ends += 1
            raise Killed

        spec = dataclasses.replace(SPEC, families=("mlp",), trials=1)
        for _ in range(2):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(optuna.Study, "tell", dies)
                with pytest.raises(Killed):
                    search(spec, runs=tmp_path, device="cpu")
        assert ends == 2
        again = search(spec, runs=tmp_path, device="cpu")
        check_histories(again)
        check_leader(again, tmp_path)
        assert files_in(again.place) == ids_in(again)


def test_two_workers_share_the_studies(tmp_path: Path) -> None:
    spec = dataclasses.replace(SPEC, trials=6)
    with faults.processes(as_in_use=False):
        record = search(spec, runs=tmp_path, device="cpu", workers=2)
    assert record.finished == 6
    check_histories(record)
    check_leader(record, tmp_path)
    assert files_in(record.place) == ids_in(record)


@pytest.fixture
def long_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials of a second are taken for long ones, and pay for all that there is."""
    monkeypatch.setattr(gallery, "PICTURED_SECONDS", 0.0)
    monkeypatch.setattr(gallery, "SHARE", 1e6)


@pytest.mark.usefixtures("long_trials")
class TestLongTrials:
    def test_each_has_its_pictures_and_each_study_those_of_its_best(self, tmp_path: Path) -> None:
        record = search(SPEC, runs=tmp_path, device="cpu")
        for trial in record.trials:
            found = attached(record, trial)
            assert set(found) == {HISTORY, *PICTURES}
            assert all(is_picture(found[name]) for name in PICTURES)
        for family in record.families:
            best = record.leader(family)
            assert best is not None
            own, of_study = attached(record, best), attached(record, study_of(record, family))
            assert all(of_study[f"best_{name}"] == own[name] for name in PICTURES)
        assert files_in(record.place) == ids_in(record)

    def test_a_new_best_takes_the_place_of_the_one_before(self, tmp_path: Path) -> None:
        spec = dataclasses.replace(
            SPEC, families=("mlp",), trials=1, first=({"lr": 1e-4, "optimizer": "sgd"},)
        )
        first = search(spec, runs=tmp_path, device="cpu")
        before = attached(first, study_of(first, "mlp"))
        ids = [row.artifact_id for row in get_all_artifact_meta(study_of(first, "mlp"))]
        second = search(dataclasses.replace(spec, trials=4), runs=tmp_path, device="cpu")
        assert second.best.number > 0
        check_leader(second, tmp_path)
        after = attached(second, study_of(second, "mlp"))
        assert all(after[name] != before[name] for name in after)
        assert [row.artifact_id for row in get_all_artifact_meta(study_of(second, "mlp"))] == ids

    def test_best_means_no_pictures_of_other_trials(self, tmp_path: Path) -> None:
        spec = dataclasses.replace(SPEC, artifacts="best")
        record = search(spec, runs=tmp_path, device="cpu")
        assert all(set(attached(record, trial)) == {HISTORY} for trial in record.trials)
        check_leader(record, tmp_path)

    def test_none_means_none_and_may_change(self, tmp_path: Path) -> None:
        spec = dataclasses.replace(SPEC, families=("mlp",), trials=1, artifacts="none")
        record = search(spec, runs=tmp_path, device="cpu")
        assert ids_in(record) == []
        assert not record.place.artifacts.exists()
        more = dataclasses.replace(spec, trials=2, artifacts="all")
        check_leader(search(more, runs=tmp_path, device="cpu"), tmp_path)

    def test_titles_say_what_is_shown(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits: ImageDataset
    ) -> None:
        titles: dict[str, str] = {}
        shown: list[ImagePart] = []

        def noting(name: str, draw: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, title: str, **kwargs: Any) -> Any:
                titles[name] = title
                shown.extend(arg for arg in args if isinstance(arg, ImagePart))
                return draw(*args, title=title, **kwargs)

            return call

        for module, name in (
            (curves, "curves_figure"),
            (confusion, "confusion_figure"),
            (mistakes, "worst_mistakes_figure"),
        ):
            monkeypatch.setattr(module, name, noting(name, getattr(module, name)))
        spec = dataclasses.replace(SPEC, families=("mlp",), trials=1)
        record = search(spec, runs=tmp_path, device="cpu")
        share = f"{record.best.val_accuracy:.2%} of 360 images"
        errors = round((1 - (record.best.val_accuracy or 0)) * 360)
        assert titles == {
            "curves_figure": "digits, mlp-0",
            "confusion_figure": f"digits, mlp-0, validation: {share} (errors: {errors})",
            "worst_mistakes_figure": "digits, mlp-0, validation",
        }
        rows = val_part(record, digits).rows
        assert len(shown) == 1
        assert np.array_equal(shown[0].rows, rows)

    def test_a_failed_trial_shows_how_it_came_to_that(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Diverging(Training):
            def run(self) -> Generator[EpochResult, None, None]:
                for result in super().run():
                    yield result
                    raise NonFiniteLossError("the loss is not finite in epoch 1")

        monkeypatch.setattr(trial_module, "Training", Diverging)
        spec = dataclasses.replace(SPEC, families=("mlp",), trials=1)
        (trial, *_) = search(spec, runs=tmp_path, device="cpu").trials
        assert (trial.state, trial.epochs) == ("failed", 1)
        record = load_search(tmp_path)
        check_histories(record)
        assert set(attached(record, trial)) == {HISTORY, *PICTURES}


class TestWhatGoesWrong:
    def test_a_folder_that_cannot_be_made_is_noted(self, tmp_path: Path) -> None:
        place = Place(tmp_path)
        place.private.mkdir()
        place.artifacts.write_text("in the way", encoding="utf-8")
        record = search(SPEC, runs=tmp_path, device="cpu")
        assert record.finished == SPEC.trials
        for trial in record.trials:
            assert trial.note == (
                "not all of its files for the dashboard could be written (File exists)"
            )
        assert ids_in(record) == []

    @pytest.mark.usefixtures("long_trials")
    def test_a_full_disk_leaves_no_halves(self, tmp_path: Path, small_disk: Path) -> None:
        """Of the pictures of the first trial, some fit."""
        record = search(
            dataclasses.replace(SPEC, families=("mlp",), trials=2), runs=tmp_path, device="cpu"
        )
        assert [trial.state for trial in record.trials if trial.state != "waiting"] == [
            "complete",
            "complete",
        ]
        assert all("No space left on device" in trial.note for trial in record.trials)
        assert files_in(record.place) == ids_in(record)
        assert not any(name.startswith(".") for name in files_in(record.place))
        for trial in record.trials:
            for name, content in attached(record, trial).items():
                assert name == HISTORY or is_picture(content)

    @pytest.mark.usefixtures("long_trials")
    def test_a_picture_that_cannot_be_drawn_fails_no_trial(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(*_: Any, **__: Any) -> None:
            raise ValueError("no such colour")

        monkeypatch.setattr(confusion, "confusion_figure", fails)
        record = search(dataclasses.replace(SPEC, trials=2), runs=tmp_path, device="cpu")
        complete = [trial for trial in record.trials if trial.state == "complete"]
        assert len(complete) == 2
        for trial in complete:
            assert "no such colour" in trial.note
            assert HISTORY in attached(record, trial)

    def test_what_was_deleted_is_there_again_after_the_next_trials(self, tmp_path: Path) -> None:
        spec = dataclasses.replace(SPEC, families=("mlp",), trials=1)
        record = search(spec, runs=tmp_path, device="cpu")
        for path in record.place.artifacts.iterdir():
            path.unlink()
        again = search(dataclasses.replace(spec, trials=2), runs=tmp_path, device="cpu")
        check_leader(again, tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The folder of the artifacts, on a file system of its own that is soon full."""
    folder = Place(tmp_path).artifacts
    with faults.small_disk(folder, "100k"):
        yield folder


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_pictures_wait_until_the_training_pays_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits: ImageDataset
) -> None:
    spec = dataclasses.replace(SPEC, families=("mlp",), trials=2, artifacts="none")
    record = search(spec, runs=tmp_path, device="cpu")
    study, clock, drawn = study_of(record, "mlp"), Clock(), 0
    draw = gallery.draw

    def slowly(*args: Any) -> Any:
        nonlocal drawn
        drawn += 1
        clock.now += 3.0
        return draw(*args)

    monkeypatch.setattr(gallery, "draw", slowly)
    own = Gallery(
        dataclasses.replace(spec, artifacts="all"),
        record.place,
        val_part(record, digits),
        clock=clock,
    )
    own.follow(study, "mlp")
    own.account.trained(49.0)
    own.follow(study, "mlp")
    assert drawn == 0
    own.account.trained(1.0)
    own.follow(study, "mlp")
    assert drawn == 1
    check_leader(record, tmp_path)
    own.account.trained(1000.0)
    own.follow(study, "mlp")
    own.finish({"mlp": study})
    assert drawn == 1  # they are those of the best already


def brought_up_to_date(runs: str, name: str) -> int:
    """Runs in a process of its own: the end of a worker; how many pictures it drew."""
    from hpsearch.data.store import load_dataset

    record = load_search(runs, name)
    drawn = 0
    draw = gallery.draw

    def noting(*args: Any) -> Any:
        nonlocal drawn
        drawn += 1
        return draw(*args)

    gallery.draw = noting  # type: ignore[assignment]
    part = load_dataset("digits").part(load_split(record.folder / SPLIT).val)
    spec = dataclasses.replace(StudySpec.from_dict(record.spec), artifacts="all")
    own = Gallery(spec, record.place, part)
    own.finish({family: study_of(record, family) for family in record.families})
    return drawn


def test_of_several_workers_that_end_at_once_one_draws(
    tmp_path: Path, together: Callable[..., list[Any]]
) -> None:
    spec = dataclasses.replace(SPEC, families=("mlp",), trials=2, artifacts="none")
    record = search(spec, runs=tmp_path, device="cpu")
    drawn = together(3, brought_up_to_date, str(tmp_path), record.name)
    assert sorted(drawn) == [0, 0, 1]
    check_leader(record, tmp_path)
    assert files_in(record.place) == ids_in(record)


def made_old(record: SearchRecord) -> None:
    """Leaves of a search what an earlier version would have left."""
    with sqlite3.connect(record.runs / DATABASE) as database:
        for key in ("config", "setting"):
            database.execute(
                "INSERT INTO trial_user_attributes (trial_id, key, value_json) "
                "SELECT trial_id, ?, value_json FROM trial_system_attributes WHERE key = ?",
                (key, f"hpsearch:{key}"),
            )
        database.execute("DELETE FROM trial_system_attributes WHERE key LIKE 'hpsearch:%'")
        database.execute(
            "DELETE FROM trial_user_attributes WHERE key IN ('device', 'host', 'peak_memory_mib')"
        )
        rows = database.execute(
            "SELECT study_id, value_json FROM study_user_attributes WHERE key = 'spec'"
        ).fetchall()
        for study_id, text in rows:
            old = {key: value for key, value in json.loads(text).items() if key != "artifacts"}
            database.execute(
                "UPDATE study_user_attributes SET value_json = ? WHERE study_id = ? "
                "AND key = 'spec'",
                (json.dumps(old), study_id),
            )
    database.close()
    for trial in record.trials:
        (trial.folder / VALIDATION).unlink(missing_ok=True)


class TestSearchesOfEarlierVersions:
    def test_they_are_read_exported_and_gone_on_with(self, tmp_path: Path) -> None:
        runs = tmp_path / "runs"
        spec = dataclasses.replace(SPEC, families=("mlp",), trials=2, artifacts="none")
        record = search(spec, runs=runs, device="cpu")
        made_old(record)
        old = load_search(runs)
        assert [trial.config for trial in old.trials] == [trial.config for trial in record.trials]
        assert (old.best.device, old.best.host, old.best.peak_memory) == ("", "", None)
        export(old.best, tmp_path / "export", device="cpu")
        more = dataclasses.replace(spec, trials=3, artifacts="all")
        again = search(more, runs=runs, device="cpu")
        assert again.count("complete") == 3
        assert again.trials[0].config == record.trials[0].config
        study = study_of(again, "mlp")
        attrs = study._storage.get_study_system_attrs(study._study_id).items()
        rows = [json.loads(value) for key, value in attrs if key.startswith("artifacts:")]
        names = {row["filename"] for row in rows if row is not None}
        # What a trial made of single images is not known.
        assert names == {"best_checkpoint.pt", *(BEST if again.best.number == 2 else OLD)}

    def test_a_trial_that_was_running_goes_on(self, tmp_path: Path) -> None:
        spec = dataclasses.replace(SPEC, families=("mlp",), trials=1, epochs=4, checkpoint_every=1)
        expected = search(spec, runs=tmp_path / "expected", device="cpu")

        def stop(event: Event) -> None:
            if isinstance(event, EpochFinished) and event.result.epoch == 2:
                raise KeyboardInterrupt

        runs = tmp_path / "runs"
        with pytest.raises(KeyboardInterrupt):
            search(spec, runs=runs, device="cpu", watch=stop)
        made_old(load_search(runs))
        epochs: list[int] = []

        def note(event: Event) -> None:
            if isinstance(event, EpochFinished):
                epochs.append(event.result.epoch)

        record = search(spec, runs=runs, device="cpu", watch=note)
        assert epochs == [2, 3]
        assert record.best.val_accuracy == expected.best.val_accuracy
        history = read_history(record.best.folder / HISTORY)
        assert len(history) == 4
