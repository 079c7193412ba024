"""Searches on real images, small: the same whatever interrupts them, sealed, exact."""

import contextlib
import dataclasses
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import faults
import numpy as np
import optuna
import pytest
import torch
from PIL import Image

from hpsearch import Range, SearchRecord, StudySpec, export, load_search, plan, search
from hpsearch.config import EarlyStopping
from hpsearch.data.checks.source import check_source
from hpsearch.data.spec import DataSpec
from hpsearch.data.splits import SplitSpec, development_data, load_split
from hpsearch.data.store import load_dataset
from hpsearch.data.views import DataViews
from hpsearch.engine.events import (
    DataProgress,
    EpochFinished,
    Event,
    SearchStarted,
    TrialFinished,
    TrialStarted,
)
from hpsearch.engine.existing import Existing, check_same_search
from hpsearch.engine.place import DATABASE, SPLIT, Place
from hpsearch.errors import DataError, SearchError, SpaceError
from hpsearch.families import build_model
from hpsearch.training.checkpoint import load_checkpoint
from hpsearch.training.history import read_history
from hpsearch.training.trainer import train

SMALL = StudySpec(families=("logistic", "mlp"), trials=12, epochs=4, artifacts="none")


def outcome(record: SearchRecord) -> list[dict[str, Any]]:
    """All that must be the same in every repetition of a search: all but times and places."""
    rows = [dataclasses.asdict(trial) for trial in record.trials]
    for row, trial in zip(rows, record.trials, strict=True):
        for name in ("place", "folder", "seconds", "images_per_second", "peak_memory", "ended"):
            del row[name]
        row["history"] = [
            dataclasses.replace(r, seconds=0, images_per_second=0)
            for r in read_history(trial.folder / "history.csv")
        ]
        row["weights"] = trial.checkpoint and {
            name: tensor.tolist()
            for name, tensor in load_checkpoint(trial.checkpoint).state.items()
        }
    return rows


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> SearchRecord:
    return search(SMALL, runs=tmp_path_factory.mktemp("runs"), device="cpu")


def test_a_search_does_what_was_asked(uninterrupted: SearchRecord) -> None:
    for family in SMALL.families:
        trials = [trial for trial in uninterrupted.trials if trial.family == family]
        assert [trial.number for trial in trials] == list(range(6))
        assert {trial.state for trial in trials} <= {"complete", "pruned"}
        good = {"logistic": 1, "mlp": 2}[family]
        startup = ["known-good"] * good + ["random"] * (3 - good)
        assert [trial.chosen_by for trial in trials[:3]] == startup
        assert {trial.chosen_by for trial in trials[3:]} == {"model"}
    assert uninterrupted.count("pruned") > 0
    assert uninterrupted.best.val_accuracy is not None
    assert uninterrupted.best.val_accuracy > 0.8


def test_a_trials_value_is_that_of_the_checkpoint_that_is_kept(uninterrupted: SearchRecord) -> None:
    for trial in uninterrupted.trials:
        history = read_history(trial.folder / "history.csv")
        best = max(history, key=lambda r: (r.val_accuracy, -r.val_loss))
        assert (trial.val_accuracy, trial.val_loss) == (best.val_accuracy, best.val_loss)
        assert trial.best_epoch == best.epoch
        assert trial.epochs == len(history)
        if trial.checkpoint:
            metrics = load_checkpoint(trial.checkpoint).metrics
            assert metrics["val_accuracy"] == trial.val_accuracy
            assert metrics["epoch"] == best.epoch


def test_optuna_sees_the_same_values_and_every_epoch(uninterrupted: SearchRecord) -> None:
    storage = f"sqlite:///{uninterrupted.runs / DATABASE}"
    study = optuna.load_study(study_name="digits/mlp", storage=storage)
    for frozen, trial in zip(
        study.trials, (t for t in uninterrupted.trials if t.family == "mlp"), strict=True
    ):
        assert sorted(frozen.intermediate_values) == list(range(trial.epochs))
        if trial.state == "complete":
            assert frozen.value == trial.val_accuracy == max(frozen.intermediate_values.values())


def test_only_the_best_few_keep_their_checkpoint(uninterrupted: SearchRecord) -> None:
    for family in SMALL.families:
        ranked = uninterrupted.ranked(family)
        assert [t.checkpoint is not None for t in ranked] == [
            number < SMALL.keep for number in range(len(ranked))
        ]
    unfinished = [t for t in uninterrupted.trials if t.state != "complete"]
    assert not any(t.checkpoint for t in unfinished)


def test_the_library_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    verbosity = optuna.logging.get_verbosity()
    search(dataclasses.replace(SMALL, trials=2, epochs=1), runs=tmp_path, device="cpu")
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == verbosity


def test_fewer_checkpoints_can_be_kept_later(uninterrupted: SearchRecord, tmp_path: Path) -> None:
    shutil.copytree(uninterrupted.runs, tmp_path / "runs")
    record = search(dataclasses.replace(SMALL, keep=1), runs=tmp_path / "runs", device="cpu")
    for family in SMALL.families:
        best, *others = record.ranked(family)
        assert best.checkpoint is not None
        assert not any(trial.checkpoint for trial in others)


def test_the_best_is_chosen_by_accuracy_then_loss(uninterrupted: SearchRecord) -> None:
    complete = [t for t in uninterrupted.trials if t.state == "complete"]
    best = max(complete, key=lambda t: (t.val_accuracy, -t.val_loss))  # type: ignore[operator]
    assert uninterrupted.best == best


def test_the_same_search_again_is_the_same_to_the_bit(
    uninterrupted: SearchRecord, tmp_path: Path
) -> None:
    assert outcome(search(SMALL, runs=tmp_path, device="cpu")) == outcome(uninterrupted)


class Interrupt:
    """A watcher that presses Ctrl-C at the given count of events of one kind."""

    def __init__(self, kind: type[Event], at: int) -> None:
        self.kind, self.left = kind, at

    def __call__(self, event: Event) -> None:
        self.left -= isinstance(event, self.kind)
        if self.left == 0:
            self.left = -1
            raise KeyboardInterrupt


def test_an_interrupted_search_ends_as_the_uninterrupted_one(
    uninterrupted: SearchRecord, tmp_path: Path
) -> None:
    moments = [
        (SearchStarted, 1),  # before the first trial
        (TrialStarted, 1),
        (EpochFinished, 1),
        (EpochFinished, 6),
        (TrialFinished, 2),
        (EpochFinished, 4),  # after the last epoch of a trial, before it is told
        (TrialStarted, 3),
    ]
    for kind, at in moments:
        with pytest.raises(KeyboardInterrupt):
            search(SMALL, runs=tmp_path, device="cpu", watch=Interrupt(kind, at))
    assert outcome(search(SMALL, runs=tmp_path, device="cpu")) == outcome(uninterrupted)


def test_ctrl_c_after_the_last_trial_stops_nothing(tmp_path: Path) -> None:
    def watch(event: Event) -> None:
        if isinstance(event, TrialFinished):
            signal.raise_signal(signal.SIGINT)

    spec = StudySpec(families=("logistic",), trials=2, epochs=1, artifacts="none")
    with pytest.raises(KeyboardInterrupt):
        search(spec, runs=tmp_path, device="cpu", watch=watch)
    assert load_search(tmp_path).finished == 1
    assert search(spec, runs=tmp_path, device="cpu", watch=watch).finished == 2


@pytest.mark.parametrize("method", ["suggest_categorical", "suggest_float", "set_user_attr"])
def test_an_interruption_while_a_trial_is_set_up_changes_nothing(
    uninterrupted: SearchRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    original = getattr(optuna.Trial, method)
    left = iter([*range(40), None])

    def interrupted(self: optuna.Trial, *args: Any, **kwargs: Any) -> Any:
        if next(left, 0) is None:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    monkeypatch.setattr(optuna.Trial, method, interrupted)
    with pytest.raises(KeyboardInterrupt):
        search(SMALL, runs=tmp_path, device="cpu")
    assert outcome(search(SMALL, runs=tmp_path, device="cpu")) == outcome(uninterrupted)


def kill_after(events: int, runs: Path) -> None:
    """Kills a search in a process of its own, a moment after so many events."""
    running = faults.Running(SMALL, runs=runs)
    running.until(lambda _: len(running.events) == events)
    time.sleep(0.01 * events % 0.07)
    running.kill_all()


def test_killed_processes_lose_nothing(
    uninterrupted: SearchRecord, tmp_path: Path, full_faults: bool
) -> None:
    """SIGKILL at moments that nobody chose, several times, then to the end."""
    with faults.processes(as_in_use=full_faults):
        for events in (3, 9, 14):
            kill_after(events, tmp_path)
    assert outcome(search(SMALL, runs=tmp_path, device="cpu")) == outcome(uninterrupted)


def test_trials_are_a_total_that_can_be_raised(uninterrupted: SearchRecord, tmp_path: Path) -> None:
    spec = dataclasses.replace(SMALL, trials=5)
    first = search(spec, runs=tmp_path, device="cpu")
    assert [len([t for t in first.trials if t.family == f]) for f in spec.families] == [3, 2]
    again = search(spec, runs=tmp_path, device="cpu")
    assert again == first
    more = search(SMALL, runs=tmp_path, device="cpu")
    assert len(more.trials) == SMALL.trials
    assert more.spec["trials"] == SMALL.trials
    assert outcome(more) == outcome(uninterrupted)


def test_a_trial_can_be_trained_again_from_its_record_alone(uninterrupted: SearchRecord) -> None:
    best = uninterrupted.best
    assert best.config is not None
    assert best.checkpoint is not None
    split = load_split(uninterrupted.folder / SPLIT)
    device = torch.device("cpu")
    data = DataViews.of(development_data(load_dataset("digits"), split), device).view(best.config)
    model = build_model(best.config, data.preprocessing.shape, len(data.classes))
    for result in train(model, data, best.config, device=device):
        if result.epoch == best.best_epoch:
            break
    assert (result.val_accuracy, result.val_loss) == (best.val_accuracy, best.val_loss)
    stored = load_checkpoint(best.checkpoint).state
    assert all(torch.equal(tensor, stored[name]) for name, tensor in model.state_dict().items())


def npz(path: Path, images: np.ndarray, labels: np.ndarray) -> str:
    np.savez(path, images=images, labels=labels)
    return str(path)


def test_test_images_have_no_influence_on_a_search(
    uninterrupted: SearchRecord, tmp_path: Path
) -> None:
    """Other pixels in the sealed part, and every trial is the same to the bit."""
    digits = load_dataset("digits")
    images = digits.images.copy()
    split = load_split(uninterrupted.folder / SPLIT)
    images[split.test] = np.random.default_rng(0).integers(0, 256, images[split.test].shape)
    data = npz(tmp_path / "digits.npz", images, digits.labels)
    spec = dataclasses.replace(SMALL, data=data)
    changed = search(spec, runs=tmp_path, device="cpu")
    assert changed.fingerprints["data"] != uninterrupted.fingerprints["data"]
    assert outcome(changed) == outcome(uninterrupted)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"epochs": 5}, "epochs (4 then, 5 now)"),
        ({"seed": 1}, "seed (0 then, 1 now)"),
        ({"families": ("logistic",)}, "families (logistic, mlp then, logistic now)"),
        ({"split": SplitSpec(val=0.1)}, "split val (0.2 then, 0.1 now);"),
        ({"precision": "bf16"}, "precision (fp32 then, bf16 now)"),
        ({"early_stopping": EarlyStopping(patience=2)}, "early stopping (none then"),
        (
            {"overrides": {"lr": Range(1e-3, 1e-2), "mlp.layers": (1, 2)}},
            "settings: lr (not given then, 0.001..0.01 now); mlp.layers (not given then, 1,2 now);",
        ),
    ],
)
def test_a_search_made_otherwise_is_not_resumed(
    uninterrupted: SearchRecord, change: dict[str, Any], named: str
) -> None:
    with pytest.raises(SearchError) as caught:
        search(dataclasses.replace(SMALL, **change), runs=uninterrupted.runs, device="cpu")
    assert named in str(caught.value)
    assert "'hpsearch worker digits' goes on with it as it was" in str(caught.value)
    assert "--name digits-2" in str(caught.value)
    assert load_search(uninterrupted.runs) == uninterrupted


def test_what_an_earlier_version_did_not_write_is_as_by_default(tmp_path: Path) -> None:
    spec = StudySpec()
    stored = spec.to_dict()
    del stored["data"]["on_error"], stored["pruner"]
    existing = Existing(
        attrs={"spec": stored, "fingerprints": {"data": "then"}, "paces": {}}, names=("digits",)
    )
    check_same_search(spec, {"data": "then"}, existing, Place(tmp_path))
    with pytest.raises(SearchError, match=r"settings: data \(fingerprint then then, now now\);"):
        check_same_search(spec, {"data": "now"}, existing, Place(tmp_path))


def test_a_difference_is_told_by_what_it_follows_from(tmp_path: Path) -> None:
    made = StudySpec(
        data=DataSpec(source="a.csv", options={"label": "kind", "images": "there"}),
        name="x",
        overrides={"lr": Range(1e-4, 1e-2)},
    )
    then = {"data": "a", "split": "a", "space of mlp": "a", "space of cnn": "a"}
    existing = Existing(attrs={"spec": made.to_dict(), "fingerprints": then, "paces": {}}, names=())

    def told(spec: StudySpec, **now: str) -> str:
        with pytest.raises(SearchError) as caught:
            check_same_search(spec, {**then, **now}, existing, Place(tmp_path))
        return str(caught.value).partition("settings: ")[2].partition("; 'hpsearch")[0]

    lr = dataclasses.replace(made, overrides={"lr": Range(1e-4, 3e-2), "cnn.blocks": 2})
    spaces = {"space of mlp": "b", "space of cnn": "b"}
    assert told(lr, **spaces) == (
        "lr (0.0001..0.01 then, 0.0001..0.03 now); cnn.blocks (not given then, 2 now)"
    )
    # Nothing that was given differs, so that it is the code.
    assert told(made, **{"space of mlp": "b"}) == "space of mlp (fingerprint a then, b now)"
    other = dataclasses.replace(
        made.data_spec, source="b.csv", options={"label": "age", "images": "there"}
    )
    moved = dataclasses.replace(made, data=other)
    assert told(moved, data="b", split="b") == (
        "data source (a.csv then, b.csv now); data options label (kind then, age now)"
    )


def test_other_data_under_the_same_name_is_not_resumed(tmp_path: Path) -> None:
    digits = load_dataset("digits")
    spec = StudySpec(
        data=npz(tmp_path / "mine.npz", digits.images, digits.labels),
        families=("logistic",),
        trials=1,
        epochs=1,
    )
    search(spec, runs=tmp_path / "runs", device="cpu")
    images = digits.images.copy()
    images[0, 0, 0, 0] ^= 1
    npz(tmp_path / "mine.npz", images, digits.labels)
    with pytest.raises(SearchError, match=r"data \(fingerprint .* --name mine-2"):
        search(spec, runs=tmp_path / "runs", device="cpu")


def test_fewer_images_under_the_same_name_are_other_data(tmp_path: Path) -> None:
    digits = load_dataset("digits")
    data = npz(tmp_path / "mine.npz", digits.images[:200], digits.labels[:200])
    spec = StudySpec(data=data, families=("logistic",), trials=1, epochs=1, artifacts="none")
    search(spec, runs=tmp_path / "runs", device="cpu")
    npz(tmp_path / "mine.npz", digits.images[:100], digits.labels[:100])
    with pytest.raises(SearchError, match=r"data \(fingerprint .* --name mine-2"):
        search(spec, runs=tmp_path / "runs", device="cpu")


def table_of_people(folder: Path) -> DataSpec:
    """72 pictures of 12 people in a folder of their own, and a table beside it."""
    (folder / "pictures").mkdir()
    lines = ["person,colour,picture"]
    for number in range(72):
        pixels = np.random.default_rng(number).integers(0, 90, (10, 10, 3), dtype=np.uint8)
        pixels[..., number % 2] += 150
        Image.fromarray(pixels).save(folder / "pictures" / f"{number}.png")
        lines.append(f"{number // 6},{('red', 'green')[number % 2]},{number}.png")
    (folder / "people.csv").write_text("\n".join(lines))
    options = {"images": "pictures", "label": ("colour",)}
    return DataSpec(source="people.csv", size=(6, 8), options=options)


def test_a_search_on_a_table_is_exported_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = table_of_people(tmp_path)
    events: list[Event] = []
    spec = StudySpec(data=data, families=("logistic",), trials=1, epochs=30, artifacts="none")
    record = search(spec, runs=tmp_path / "runs", device="cpu", watch=events.append)
    assert record.name == "people"
    assert record.data["shape"] == {"height": 6, "width": 8, "channels": 3}
    assert any("'person' is the group" in note for note in record.data["notes"])
    split = load_split(record.folder / SPLIT)
    groups = np.array(load_dataset(data).groups)
    sides = [set(groups[rows]) for rows in (split.train, split.val, split.test)]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 12
    started = next(event for event in events if isinstance(event, SearchStarted))
    assert started.warnings == ()
    assert any(isinstance(event, DataProgress) for event in events)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    exported = export(load_search(tmp_path / "runs").best, "exported", device="cpu")
    assert exported.metrics["test"]["images"] == len(split.test)
    assert exported.test_accuracy == 1.0


def test_another_size_is_named_when_a_search_is_not_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = table_of_people(tmp_path)
    spec = StudySpec(data=data, families=("logistic",), trials=1, epochs=1, artifacts="none")
    search(spec, runs=tmp_path, device="cpu")
    other = dataclasses.replace(spec, data=dataclasses.replace(data, size=(8, 8)))
    with pytest.raises(SearchError, match=r"settings: data size \(6x8 then, 8x8 now\)"):
        search(other, runs=tmp_path, device="cpu")


def test_what_a_check_found_is_told_when_the_search_starts(tmp_path: Path) -> None:
    digits = load_dataset("digits")
    images = digits.images.copy()
    images[1::7] = images[::7][: len(images[1::7])]  # copies, most of them of another class
    data = npz(tmp_path / "copies.npz", images, digits.labels)
    events: list[Event] = []
    spec = StudySpec(data=data, families=("logistic",), trials=1, epochs=1, artifacts="none")
    search(spec, runs=tmp_path, device="cpu", watch=events.append)
    (started,) = (event for event in events if isinstance(event, SearchStarted))
    assert any("different labels" in error for error in started.errors)
    planned = plan(spec, runs=tmp_path, device="cpu")
    assert (planned.errors, planned.warnings) == (started.errors, started.warnings)
    # A whole check is stored under the data's fingerprint, and says more than the cheap one.
    report, _ = check_source(spec.data_spec, spec.split)
    planned = plan(spec, runs=tmp_path, device="cpu")
    for severity, told in (("error", planned.errors), ("warning", planned.warnings)):
        assert told == tuple(f.message for f in report.findings if f.severity == severity)


def test_a_lost_split_is_stored_again(tmp_path: Path) -> None:
    spec = StudySpec(families=("logistic",), trials=1, epochs=1, artifacts="none")
    first = search(spec, runs=tmp_path, device="cpu")
    (first.folder / SPLIT).unlink()
    search(spec, runs=tmp_path, device="cpu")
    assert load_split(first.folder / SPLIT).fingerprint == first.fingerprints["split"]


def test_a_study_deleted_in_the_dashboard(uninterrupted: SearchRecord, tmp_path: Path) -> None:
    """The rest can be read and exported, but not gone on with, and is not lost."""
    for gone, left in (("logistic", "mlp"), ("mlp", "logistic")):
        runs = tmp_path / f"without-{gone}"
        shutil.copytree(uninterrupted.runs, runs)
        optuna.delete_study(study_name=f"digits/{gone}", storage=f"sqlite:///{runs / DATABASE}")
        record = load_search(runs)
        assert record.families == (left,)
        assert [t.name for t in record.ranked()] == [t.name for t in uninterrupted.ranked(left)]
        with pytest.raises(SearchError, match=f"digits/{gone}.*deleted.*--name"):
            search(SMALL, runs=runs, device="cpu")
        assert load_search(runs) == record


def test_a_study_deleted_while_its_search_runs(tmp_path: Path) -> None:
    def watch(event: Event) -> None:
        if isinstance(event, EpochFinished):
            storage = f"sqlite:///{tmp_path / DATABASE}"
            optuna.delete_study(study_name="digits/logistic", storage=storage)

    with pytest.raises(SearchError, match="/logistic' was deleted"):
        search(SMALL, runs=tmp_path, device="cpu", watch=watch)


def test_the_number_of_threads_is_kept_and_given_back(tmp_path: Path) -> None:
    """It changes the last bits of sums, so a search goes on with the one it began with."""
    spec = StudySpec(families=("logistic",), trials=1, epochs=1, artifacts="none")
    before = torch.get_num_threads()
    seen = []
    try:
        torch.set_num_threads(2)
        search(spec, runs=tmp_path, device="cpu")
        torch.set_num_threads(1)
        search(
            dataclasses.replace(spec, trials=2),
            runs=tmp_path,
            device="cpu",
            watch=lambda event: (
                seen.append(torch.get_num_threads()) if isinstance(event, EpochFinished) else None
            ),
        )
        assert set(seen) == {2}
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["wh?at", "ru ns%41#é", "{braces}", "a&b=c;d"])
def test_any_folder_name_serves(tmp_path: Path, name: str) -> None:
    spec = StudySpec(families=("logistic",), trials=1, epochs=1, artifacts="none")
    search(spec, runs=tmp_path / name, device="cpu")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name / DATABASE).is_file()
    assert load_search(tmp_path / name).finished == 1


def test_a_full_disk_is_told_in_one_line_and_what_was_finished_stays(tmp_path: Path) -> None:
    """A file-size limit stands in for the full disk: both are write errors of the system."""
    spec = "StudySpec(families=('logistic',), trials=200, epochs=5, artifacts='none')"
    code = (
        "import resource, signal, sys; from hpsearch import HpsearchError, StudySpec, search\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "def watch(event):\n"
        "    if 'TrialFinished' in str(type(event)):\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
        f"try: search({spec}, runs=sys.argv[1], device='cpu', watch=watch)\n"
        "except HpsearchError as error: sys.exit(str(error))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True
    )
    assert result.returncode == 1
    message = result.stderr.strip().splitlines()[-1]
    assert "cannot be written" in message
    assert "what was finished is stored" in message
    record = load_search(tmp_path)
    assert record.finished >= 1
    again = search(
        StudySpec(families=("logistic",), trials=record.finished + 1, epochs=5),
        runs=tmp_path,
        device="cpu",
    )
    assert again.finished == record.finished + 1


def test_a_default_that_diverges_is_a_failed_trial_and_no_obstacle(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (200, 64, 64, 3), dtype=np.uint8)
    data = npz(tmp_path / "noise.npz", images, np.arange(200) % 4)
    overrides: dict[str, Any] = {
        "optimizer": "sgd",
        "lr": 0.5,
        "momentum": 0.99,
        "layers": 4,
        "width": 512,
        "batch_norm": "no",
        "batch_size": 16,
    }
    spec = StudySpec(
        data=data, families=("mlp", "logistic"), trials=4, epochs=2, overrides=overrides
    )
    record = search(spec, runs=tmp_path / "runs", device="cpu")
    assert record.finished == 4
    assert record.count("failed", "mlp") > 0


@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        ({"families": ("resnext",)}, SpaceError, "'resnext'"),
        ({"overrides": {"lr": 5e4}}, SpaceError, "50000"),
        ({"overrides": {"speed": 5.0}}, SpaceError, "'speed'"),
        ({"data": "nothing"}, DataError, "'nothing'"),
        ({"data": "nothing.npz"}, DataError, "nothing.npz"),
        ({"split": SplitSpec(val=0.001)}, DataError, "0.001"),
    ],
)
def test_what_is_wrong_is_found_before_anything_is_written(
    tmp_path: Path, change: dict[str, Any], error: type[Exception], named: str
) -> None:
    with pytest.raises(error, match=named):
        search(dataclasses.replace(SMALL, **change), runs=tmp_path / "runs", device="cpu")
    assert not (tmp_path / "runs").exists()


def test_a_trial_that_fails_is_told_as_failed_and_the_search_goes_on(tmp_path: Path) -> None:
    spec = StudySpec(
        families=("mlp",),
        trials=3,
        epochs=3,
        overrides={
            "optimizer": "sgd",
            "lr": 0.5,
            "momentum": 0.99,
            "batch_norm": "no",
            "layers": 4,
            "warmup": 0.0,
            "batch_size": 16,
            "width": 512,
            "dropout": 0.0,
            "label_smoothing": 0.0,
        },
    )
    record = search(spec, runs=tmp_path, device="cpu")
    assert len(record.trials) == 3
    assert record.count("failed") > 0
    for trial in record.trials:
        if trial.state == "failed":
            assert "not finite" in trial.failure
            assert trial.checkpoint is None
    if record.count("failed") == 3:
        with pytest.raises(SearchError, match="no complete trial"):
            _ = record.best


def test_overrides_hold_in_every_trial(tmp_path: Path) -> None:
    spec = StudySpec(
        families=("cnn",),
        trials=5,
        epochs=1,
        overrides={"lr": Range(1e-3, 2e-3), "blocks": 1, "optimizer": ("sgd",), "channels": 16},
    )
    for trial in search(spec, runs=tmp_path, device="cpu").trials:
        assert trial.config is not None
        assert 1e-3 <= trial.config.optimizer.lr <= 2e-3
        assert trial.config.options["blocks"] == 1
        assert trial.config.optimizer.name == "sgd"


def test_early_stopping_is_part_of_a_trials_configuration(tmp_path: Path) -> None:
    spec = StudySpec(
        families=("logistic",),
        trials=1,
        epochs=50,
        early_stopping=EarlyStopping(patience=2, min_gain=0.5),
    )
    (trial,) = search(spec, runs=tmp_path, device="cpu").trials
    assert trial.state == "complete"
    assert trial.epochs < 10


@pytest.mark.parametrize("step", range(20))
def test_a_crash_while_a_search_is_made_is_made_good(
    uninterrupted: SearchRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """At each write to the studies before the first trial, the marks included."""
    left = iter(range(step))

    def crashing(method: str) -> Any:
        original = getattr(optuna.Study, method)

        def crash(*args: Any, **kwargs: Any) -> None:
            original(*args, **kwargs)
            if next(left, None) is None:
                raise KeyboardInterrupt

        return crash

    for method in ("set_user_attr", "enqueue_trial"):
        monkeypatch.setattr(optuna.Study, method, crashing(method))
    with pytest.raises(KeyboardInterrupt):
        search(SMALL, runs=tmp_path, device="cpu", watch=Interrupt(SearchStarted, 1))
    monkeypatch.undo()
    with contextlib.suppress(SearchError):
        assert load_search(tmp_path).families == SMALL.families
    if step % 7:  # all moments are read again, and some are searched to the end
        with pytest.raises(KeyboardInterrupt):
            search(SMALL, runs=tmp_path, device="cpu", watch=Interrupt(SearchStarted, 1))
        assert load_search(tmp_path).families == SMALL.families
    else:
        again = search(SMALL, runs=tmp_path, device="cpu")
        assert outcome(again) == outcome(uninterrupted)


def test_a_plan_estimates_and_writes_nothing(tmp_path: Path) -> None:
    planned = plan(SMALL, runs=tmp_path / "runs", device="cpu")
    assert [row.trials for row in planned.estimates] == [6, 6]
    for row in planned.estimates:
        assert row.epoch_seconds > 0
        assert row.seconds == pytest.approx(row.epoch_seconds * SMALL.epochs * row.trials)
    assert {row.name for row in planned.spaces["mlp"]} > {"lr", "layers"}
    assert list(tmp_path.iterdir()) == []


def test_a_plan_knows_what_is_done_and_what_would_be_refused(
    uninterrupted: SearchRecord, tmp_path: Path
) -> None:
    runs = uninterrupted.runs
    more = dataclasses.replace(SMALL, trials=15)
    assert [row.trials for row in plan(more, runs=runs, device="cpu").estimates] == [2, 1]
    with pytest.raises(SearchError, match="epochs"):
        plan(dataclasses.replace(SMALL, epochs=9), runs=runs, device="cpu")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SearchError, match="cannot be written"):
        plan(SMALL, runs=tmp_path / "file" / "runs", device="cpu")
    assert load_search(runs) == uninterrupted


def test_searches_of_one_folder_are_kept_apart(uninterrupted: SearchRecord, tmp_path: Path) -> None:
    small = dataclasses.replace(SMALL, trials=2, epochs=1)
    search(dataclasses.replace(small, name="first"), runs=tmp_path, device="cpu")
    search(dataclasses.replace(small, name="second"), runs=tmp_path, device="cpu")
    assert load_search(tmp_path).name == "second"
    assert load_search(tmp_path, "first").name == "first"
    search(dataclasses.replace(small, name="first"), runs=tmp_path, device="cpu")
    assert load_search(tmp_path).name == "first"
    with pytest.raises(SearchError, match=r"no search 'third'.*first, second"):
        load_search(tmp_path, "third")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_search_on_a_gpu(tmp_path: Path) -> None:
    spec = StudySpec(families=("logistic", "mlp", "cnn"), trials=6, epochs=4, artifacts="none")
    record = search(spec, runs=tmp_path, device="cuda")
    assert record.count("complete") + record.count("pruned") == 6
    assert record.best.config is not None
    assert record.best.config.precision == "bf16"
    assert export(record.best, tmp_path / "gpu", device="cuda").test_accuracy > 0.8
    assert export(record.best, tmp_path / "cpu", device="cpu").test_accuracy > 0.8
