"""Interrupted trials go on from their last state, and end as if nothing had happened."""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch

from hpsearch import SearchRecord, StudySpec, load_search, search
from hpsearch.config import EarlyStopping, TrainConfig
from hpsearch.data.preprocessing import Preprocessing
from hpsearch.engine.events import EpochFinished, Event
from hpsearch.engine.place import DATABASE
from hpsearch.engine.trial_files import TrialFiles, clear
from hpsearch.training.checkpoint import Checkpoint, load_checkpoint
from hpsearch.training.epoch import EpochResult
from hpsearch.training.history import read_history
from hpsearch.training.state import StateFiles, TrainingState, load_state, save_state
from hpsearch.training.validation import Validation, read_validation

SPEC = StudySpec(
    families=("mlp",),
    trials=1,
    epochs=6,
    checkpoint_every=1,
    artifacts="none",  # pictures take longer than these trials
    seed=1,
    precision="fp32",  # not measured: other processes may be running
    memory_format="channels_last",
    overrides={
        "layers": 1,
        "width": 32,
        "batch_norm": "yes",
        "batch_size": 16,
        "ema": 0.5,
        "optimizer": "adamw",
        "lr": 0.03,  # so high that the best epoch need not be the last one
        "schedule": "constant",
    },
)
TRIAL = "mlp-0"


def outcome(record: SearchRecord) -> list[dict[str, Any]]:
    """All that must be the same however often a search was interrupted."""
    rows = []
    for trial in (trial for trial in record.trials if trial.state != "waiting"):
        row = dataclasses.asdict(trial)
        for name in ("place", "folder", "seconds", "images_per_second", "peak_memory", "ended"):
            del row[name]
        row["history"] = [
            dataclasses.replace(result, seconds=0, images_per_second=0)
            for result in read_history(trial.folder / "history.csv")
        ]
        row["batches"] = (trial.folder / "batches.csv").read_text(encoding="utf-8")
        row["files"] = sorted(path.name for path in trial.folder.iterdir())
        if trial.checkpoint is not None:
            checkpoint = load_checkpoint(trial.checkpoint)
            row["weights"] = {n: tensor.tolist() for n, tensor in checkpoint.state.items()}
            row["metrics"] = checkpoint.metrics
        rows.append(row)
    return rows


def reports(runs: Path, spec: StudySpec = SPEC) -> list[dict[int, float]]:
    study = optuna.load_study(
        study_name=f"{spec.name}/{spec.families[0]}", storage=f"sqlite:///{runs / DATABASE}"
    )
    return [trial.intermediate_values for trial in study.trials]


class Watch:
    """Notes the epochs that were trained; presses Ctrl-C after some of them."""

    def __init__(self, *, stop_after: int = -1) -> None:
        self.epochs: list[tuple[str, int]] = []
        self.stop_after = stop_after

    def __call__(self, event: Event) -> None:
        if isinstance(event, EpochFinished):
            self.epochs.append((event.name, event.result.epoch))
            if len(self.epochs) == self.stop_after:
                raise KeyboardInterrupt


def interrupted(runs: Path, *, after: int, spec: StudySpec = SPEC) -> Path:
    """A search that was broken off in its first trial, after so many epochs; its folder."""
    with pytest.raises(KeyboardInterrupt):
        search(spec, runs=runs, device="cpu", watch=Watch(stop_after=after))
    return runs / spec.name / f"{spec.families[0]}-0.attempt-1"


def finished(runs: Path, spec: StudySpec = SPEC) -> tuple[SearchRecord, list[int]]:
    """The search, gone on with, and the epochs of its first trial that were trained for it."""
    watch = Watch()
    record = search(spec, runs=runs, device="cpu", watch=watch)
    return record, [epoch for name, epoch in watch.epochs if name.endswith("-0")]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> SearchRecord:
    runs = tmp_path_factory.mktemp("runs")
    return search(dataclasses.replace(SPEC, checkpoint_every=0), runs=runs, device="cpu")


@pytest.fixture(scope="module")
def expected(uninterrupted: SearchRecord) -> list[dict[str, Any]]:
    return outcome(uninterrupted)


def test_killed_trials_go_on_from_their_last_state(
    tmp_path: Path, expected: list[dict[str, Any]]
) -> None:
    code = (
        "import sys, time, torch; sys.path.insert(0, sys.argv[2]); "
        "from test_trial_resume import SPEC; from hpsearch import search; "
        "torch.set_num_threads(int(sys.argv[3])); "
        "search(SPEC, runs=sys.argv[1], device='cpu', "
        "watch=lambda event: (print(type(event).__name__, flush=True), time.sleep(0.02)))"
    )
    arguments = [str(tmp_path), str(Path(__file__).parent), str(torch.get_num_threads())]
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = (line for line in process.stdout if line.strip() == "EpochFinished")
        assert len(list(itertools.islice(lines, 3))) == 3, "it ended before it was killed"
        process.send_signal(signal.SIGKILL)
    record, trained = finished(tmp_path)
    assert outcome(record) == expected
    assert min(trained, default=SPEC.epochs) >= 2  # two states were there after three epochs
    assert sorted(reports(tmp_path)[0]) == list(range(SPEC.epochs))


@pytest.mark.parametrize("every", [1, 3])
def test_ctrl_c_after_any_epoch(tmp_path: Path, expected: list[dict[str, Any]], every: int) -> None:
    for after in (1, 2, 4, 6):
        spec = dataclasses.replace(SPEC, checkpoint_every=every)
        runs = tmp_path / str(after)
        folder = interrupted(runs, after=after, spec=spec)
        # The epoch of the interruption itself was not saved.
        saved = [number for number in range(1, after) if number % every == 0]
        names = {path.name for path in folder.iterdir()}
        assert names >= {f"state-{number}.pt" for number in saved[-2:]}
        assert ("checkpoint.pt" in names) == bool(saved)
        record, trained = finished(runs, spec)
        assert trained == list(range(max(saved, default=0), SPEC.epochs))
        assert outcome(record) == expected


def test_an_often_interrupted_trial_ends(tmp_path: Path, expected: list[dict[str, Any]]) -> None:
    for _ in range(SPEC.epochs - 1):
        interrupted(tmp_path, after=2)
    record, trained = finished(tmp_path)
    assert trained == [SPEC.epochs - 1]
    assert outcome(record) == expected


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


def flip(path: Path) -> None:
    """One bit of a weight."""
    content = bytearray(path.read_bytes())
    tensors = torch.load(path, weights_only=True)["state"].values()
    weight = max(tensors, key=torch.Tensor.numel).contiguous()
    content[content.index(weight.numpy().tobytes()) + 5] ^= 16
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink], ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    ("files", "begins"),
    [
        (["state-4.pt"], 3),
        (["checkpoint.pt"], None),
        (["state-4.pt", "state-3.pt"], 0),
        (["checkpoint.pt", "state-4.pt"], None),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else "",
)
def test_damaged_files_change_nothing_but_the_epoch_that_it_goes_on_from(
    tmp_path: Path,
    expected: list[dict[str, Any]],
    damage: Callable[[Path], None],
    files: list[str],
    begins: int | None,
) -> None:
    folder = interrupted(tmp_path, after=5)
    for name in files:
        damage(folder / name)
    record, trained = finished(tmp_path)
    if begins is not None:
        assert trained == list(range(begins, SPEC.epochs))
    assert outcome(record) == expected


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_crash_at_any_change_of_a_file_is_made_good(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    expected: list[dict[str, Any]],
    moment: str,
) -> None:
    """Before and after each renaming and removal within the first trial."""
    spec = dataclasses.replace(SPEC, checkpoint_every=2)
    replace, rename, unlink = os.replace, os.rename, os.unlink
    for step in itertools.count():
        runs = tmp_path / str(step)
        left = iter(range(step))
        crashed = False

        def crash(original: Callable[..., None], *args: Any, left: Any = left) -> None:
            nonlocal crashed
            ours = TRIAL in str(args[0]) and not crashed
            crashes = ours and next(left, None) is None
            crashed |= crashes
            if crashes and moment == "before":
                raise KeyboardInterrupt
            original(*args)
            if crashes:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", lambda path, to: crash(replace, path, to))
            patch.setattr(Path, "rename", lambda path, to: crash(rename, path, to))
            patch.setattr(
                Path,
                "unlink",
                lambda path, missing_ok=False: path.exists() and crash(unlink, path),
            )
            try:
                search(spec, runs=runs, device="cpu")
            except KeyboardInterrupt:
                assert crashed
        record, _ = finished(runs, spec)
        assert outcome(record) == expected
        if not crashed:
            break
    assert step > 10


def test_a_state_of_another_configuration_is_not_used(
    tmp_path: Path, expected: list[dict[str, Any]]
) -> None:
    folder = interrupted(tmp_path, after=4)
    for number in (2, 3):
        state = load_state(folder / f"state-{number}.pt")
        other = dataclasses.replace(state.config, seed=5)
        save_state(folder / f"state-{number}.pt", dataclasses.replace(state, config=other))
    record, trained = finished(tmp_path)
    assert trained == list(range(SPEC.epochs))
    assert outcome(record) == expected


def test_files_of_a_search_that_is_gone_are_not_used(tmp_path: Path) -> None:
    """The same configuration, but perhaps on other data."""
    interrupted(tmp_path, after=4)
    for path in tmp_path.glob(f"{DATABASE}*"):
        path.unlink()
    _, trained = finished(tmp_path)
    assert trained == list(range(SPEC.epochs))


def test_how_often_states_are_saved_can_be_changed_between(
    tmp_path: Path, expected: list[dict[str, Any]]
) -> None:
    interrupted(tmp_path, after=4)
    record, trained = finished(tmp_path, dataclasses.replace(SPEC, checkpoint_every=0))
    assert trained == [3, 4, 5]
    assert outcome(record) == expected
    assert load_search(tmp_path).spec["checkpoint_every"] == 0


def test_epochs_of_before_are_neither_reported_nor_judged_again(
    tmp_path: Path, noted_calls: tuple[list[int], list[int | None]]
) -> None:
    spec = dataclasses.replace(SPEC, checkpoint_every=2)
    interrupted(tmp_path, after=4, spec=spec)
    reported, judged = noted_calls
    reported.clear()
    judged.clear()
    _, trained = finished(tmp_path, spec)
    assert trained == [2, 3, 4, 5]
    assert reported == [4, 5]
    assert judged == [3, 4, 5]  # 3 was reported, but Ctrl-C came before it was judged


def test_early_stopping_and_times_go_on_too(tmp_path: Path) -> None:
    spec = dataclasses.replace(
        SPEC, epochs=30, early_stopping=EarlyStopping(patience=2, min_gain=0.02)
    )
    whole = search(spec, runs=tmp_path / "whole", device="cpu").trials[0]
    assert whole.epochs < 30
    for after in (1, whole.epochs - 1):
        folder = interrupted(tmp_path / str(after), after=after + 1, spec=spec)
        (state, *_) = StateFiles(folder).whole()
        record, trained = finished(tmp_path / str(after), spec)
        assert trained == list(range(after, whole.epochs))
        seconds = sum(result.seconds for result in state.history)
        assert record.trials[0].seconds > seconds
        assert (
            outcome(record)[0]["history"] == outcome(load_search(tmp_path / "whole"))[0]["history"]
        )


FAMILY = '''
import torch
from torch import nn
from hpsearch import Family, StagedModel, ask_start, suggest_training


class Breaking(nn.Module):
    """Its outputs are infinite from its fourth epoch of training on."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        if self.training:
            self.seen += len(x)
        return x * torch.where(self.seen > 3.5 * IMAGES, torch.inf, 1.0)


def suggest(s, shape):
    return suggest_training(s, ask_start(s, shape), options={}, dropout=False)


def build(options, shape, n_classes):
    pixels = shape.channels * shape.height * shape.width
    head = nn.Sequential(nn.Flatten(), nn.Linear(pixels, n_classes), Breaking())
    return StagedModel({"head": head})


FAMILY = Family(
    summary="breaks",
    suggest=suggest,
    build=build,
    defaults=({"optimizer": "sgd", "lr": 0.01},),
)
'''


@pytest.fixture
def breaking(tmp_path: Path) -> StudySpec:
    path = tmp_path / "breaking.py"
    path.write_text(FAMILY.replace("IMAGES", "1077"), encoding="utf-8")
    return StudySpec(families=(str(path),), trials=1, epochs=8, checkpoint_every=1)


def stopped_when(monkeypatch: pytest.MonkeyPatch, key: str, spec: StudySpec, runs: Path) -> Path:
    """A search that Ctrl-C ends where a trial's attribute is written; the trial's folder."""
    original = optuna.Trial.set_user_attr

    def stop(self: optuna.Trial, name: str, value: Any) -> None:
        if name == key:
            raise KeyboardInterrupt
        original(self, name, value)

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Trial, "set_user_attr", stop)
        with pytest.raises(KeyboardInterrupt):
            search(spec, runs=runs, device="cpu")
    return runs / spec.name / "breaking-0.attempt-1"


@pytest.mark.parametrize(("what", "state"), [("fail", "failed"), ("prune", "pruned")])
def test_an_epoch_whose_loss_is_not_finite_is_not_saved(
    tmp_path: Path,
    breaking: StudySpec,
    monkeypatch: pytest.MonkeyPatch,
    what: Any,
    state: str,
) -> None:
    spec = dataclasses.replace(breaking, non_finite=what)
    folder = stopped_when(monkeypatch, "failure", spec, tmp_path / "runs")
    (newest, before) = StateFiles(folder).whole()
    assert (len(newest.history), len(before.history)) == (3, 2)
    best = max(newest.history, key=lambda result: (result.val_accuracy, -result.val_loss))
    checkpoint = load_checkpoint(folder / "checkpoint.pt")
    assert checkpoint.metrics["epoch"] == best.epoch
    assert all(torch.isfinite(tensor).all() for tensor in checkpoint.state.values())

    record, trained = finished(tmp_path / "runs", spec)
    assert trained == []  # only the epoch that failed
    (trial,) = record.trials
    assert trial.state == state
    assert "not finite in epoch 3" in trial.failure
    assert (trial.epochs, trial.best_epoch) == (3, best.epoch)
    assert trial.val_accuracy == trial.value == best.val_accuracy
    assert sorted(path.name for path in trial.folder.iterdir()) == ["batches.csv", "history.csv"]


def test_a_finished_trial_that_was_not_tidied_up_is_at_the_next_start(tmp_path: Path) -> None:
    folder = interrupted(tmp_path, after=3)
    kept = [path for path in folder.iterdir() if path.name.startswith("state")]
    contents = {path.name: path.read_bytes() for path in kept}
    record, _ = finished(tmp_path)
    folder = record.trials[0].folder
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "checkpoint-1.pt").write_bytes(b"")
    (folder / ".checkpoint.pt.x1y2z3").write_bytes(b"half of it")
    finished(tmp_path)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["batches.csv", "checkpoint.pt", "history.csv", "validation.npz"]


def test_what_is_recorded_of_a_trial(uninterrupted: SearchRecord) -> None:
    trial = uninterrupted.trials[0]
    best = read_history(trial.folder / "history.csv")[trial.best_epoch or 0]
    assert trial.checkpoint is not None
    metrics = dict(load_checkpoint(trial.checkpoint).metrics)
    names = {field.name for field in dataclasses.fields(EpochResult)}
    assert set(metrics) == names - {"is_best", "seconds", "images_per_second", "batch_losses"}
    assert metrics == {name: getattr(best, name) for name in metrics}
    for name in ("val_accuracy", "val_balanced_accuracy", "val_macro_f1", "val_loss"):
        assert getattr(trial, name) == getattr(best, name)
    batches = (trial.folder / "batches.csv").read_text(encoding="utf-8").splitlines()
    assert len(batches) > trial.epochs


@pytest.mark.parametrize("objective", ["val_loss", "val_macro_f1"])
def test_the_value_is_the_objectives(tmp_path: Path, objective: str) -> None:
    spec = dataclasses.replace(SPEC, objective=objective)
    folder = interrupted(tmp_path, after=4, spec=spec)
    choose = min if objective == "val_loss" else max
    (state, *_) = StateFiles(folder).whole()
    best = choose(state.history, key=lambda result: getattr(result, objective))
    assert load_checkpoint(folder / "checkpoint.pt").metrics["epoch"] == best.epoch
    record, _ = finished(tmp_path, spec)
    trial = record.trials[0]
    history = read_history(trial.folder / "history.csv")
    values = [getattr(result, objective) for result in history]
    assert trial.value == getattr(trial, objective) == choose(values)
    assert list(reports(tmp_path, spec)[0].values()) == values


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def result_of(epoch: int, *, is_best: bool = True) -> EpochResult:
    numbers = dict.fromkeys((field.name for field in dataclasses.fields(EpochResult)), 0.5)
    accuracy = 0.5 + 0.01 * epoch if is_best else 0.1
    changes: dict[str, Any] = {
        "epoch": epoch,
        "val_accuracy": accuracy,
        "is_best": is_best,
        "batch_losses": (0.5,),
    }
    return EpochResult(**{**numbers, **changes})


def checkpoint_of(result: EpochResult) -> Checkpoint:
    return Checkpoint(
        state={"weight": torch.full((3,), float(result.epoch))},
        config=TrainConfig(family="mlp"),
        classes=("ant", "bee"),
        preprocessing=Preprocessing(height=1, width=1, channels=1, mean=(0.5,), std=(0.5,)),
        metrics={"epoch": result.epoch},
        origin={},
    )


def validation_of(result: EpochResult) -> Validation:
    return Validation.of(result.epoch, torch.tensor([[0.0, 1.0]]))


def state_of(*history: EpochResult) -> TrainingState:
    return TrainingState(config=TrainConfig(family="mlp"), history=history, model={}, optimizer={})


def test_states_cost_a_fiftieth_of_the_time(tmp_path: Path) -> None:
    clock = Clock()
    files = TrialFiles(tmp_path / "mlp-0", attempt=1, clock=clock)
    files.begin()
    saved: list[int] = []
    cost = 0.0

    def state() -> TrainingState:
        clock.now += cost
        saved.append(len(history))
        return state_of(*history)

    history: list[EpochResult] = []

    def epochs(number: int, seconds: float) -> None:
        for _ in range(number):
            clock.now += seconds
            history.append(result_of(len(history)))
            files.keep(checkpoint_of(history[-1]), validation_of(history[-1]))
            files.save_if_due(len(history), state)

    cost = 0.5
    epochs(9, 0.25)
    assert saved == []  # short trials save none
    assert list(files.folder.iterdir()) == []
    epochs(1, 0.25)
    assert saved == [10]
    epochs(24, 1.0)
    assert saved == [10]
    cost = 0.01
    epochs(1, 1.0)
    assert saved == [10, 35]
    epochs(3, 0.25)
    assert saved == [10, 35, 37]


def test_only_what_the_two_states_need_is_kept(tmp_path: Path) -> None:
    files = TrialFiles(tmp_path / "mlp-0", attempt=1, every=1)
    files.begin()
    folder = files.folder
    history: list[EpochResult] = []
    found = []
    for epoch, is_best in enumerate((True, True, False, True, True, False, False)):
        history.append(result_of(epoch, is_best=is_best))
        if is_best:
            files.keep(checkpoint_of(history[-1]), validation_of(history[-1]))
        files.save_if_due(len(history), lambda: state_of(*history))
        kept = {path.name for path in folder.iterdir()} - {"checkpoint.pt", "validation.npz"}
        found.append(sorted(kept))
        written = load_checkpoint(folder / "checkpoint.pt")
        best = max(result.epoch for result in history if result.is_best)
        assert written.metrics["epoch"] == best
        assert written.state["weight"][0] == best
        assert read_validation(folder / "validation.npz").epoch == best
    assert found == [
        ["state-1.pt"],
        ["checkpoint-0.pt", "state-1.pt", "state-2.pt"],
        ["state-2.pt", "state-3.pt"],
        ["checkpoint-1.pt", "state-3.pt", "state-4.pt"],
        ["checkpoint-3.pt", "state-4.pt", "state-5.pt"],
        ["state-5.pt", "state-6.pt"],
        ["state-6.pt", "state-7.pt"],
    ]


def test_the_state_before_has_its_own_best_weights(tmp_path: Path) -> None:
    """On a GPU, the epochs after it need not come out as they did."""
    history = [result_of(epoch) for epoch in range(4)]
    files = TrialFiles(tmp_path / "mlp-0", attempt=1, every=1)
    files.begin()
    folder = files.folder
    for number, result in enumerate(history, start=1):
        files.keep(checkpoint_of(result), validation_of(result))
        files.save_if_due(number, lambda number=number: state_of(*history[:number]))  # type: ignore[misc]
    truncate(folder / "state-4.pt")
    again = TrialFiles(tmp_path / "mlp-0", attempt=2, every=1)
    again.take_over()
    folder = again.folder
    state = again.take_up(TrainConfig(family="mlp"))
    assert state is not None
    assert len(state.history) == 3
    assert load_checkpoint(folder / "checkpoint.pt").metrics["epoch"] == 2
    assert again.validation(2) is None  # it was that of the epoch that is to come again
    assert not (folder / "validation.npz").exists()
    worse = [*history[:3], result_of(3, is_best=False)]
    again.save_if_due(4, lambda: state_of(*worse))
    again.write_best()  # of nothing new
    assert load_checkpoint(folder / "checkpoint.pt").metrics["epoch"] == 2


def test_what_is_removed_is_only_what_running_trials_need(tmp_path: Path) -> None:
    files = TrialFiles(tmp_path / "mlp-0", attempt=1, every=1)
    files.begin()
    folder = files.folder
    history = [result_of(0), result_of(1)]
    for number, result in enumerate(history, start=1):
        files.keep(checkpoint_of(result), validation_of(result))
        files.save_if_due(number, lambda number=number: state_of(*history[:number]))  # type: ignore[misc]
    (folder / "history.csv").write_text("", encoding="utf-8")
    files.publish()
    folder = tmp_path / "mlp-0"
    clear(folder)
    kept = ["checkpoint.pt", "history.csv", "validation.npz"]
    assert sorted(path.name for path in folder.iterdir()) == kept
