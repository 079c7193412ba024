"""What the device decides of a trial: parts that fit its memory, and the fastest setting."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from rich.console import Console

from hpsearch import SearchRecord, StudySpec, TrialRecord, export, load_search, search
from hpsearch.cli.live import PlainView
from hpsearch.cli.report import print_report
from hpsearch.config import TrainConfig
from hpsearch.data.dataset import ImageDataset
from hpsearch.data.resident import ResidentData
from hpsearch.data.splits import development_data, load_split
from hpsearch.data.views import DataViews
from hpsearch.engine import estimate, fit
from hpsearch.engine import trial as trial_module
from hpsearch.engine.estimate import Pace
from hpsearch.engine.events import EpochFinished, Event, TrialStarted
from hpsearch.engine.fit import Fit
from hpsearch.engine.hidden import CONFIG, SETTING, hidden
from hpsearch.engine.place import DATABASE, SPLIT
from hpsearch.engine.records import NOTE
from hpsearch.engine.storage import quiet_optuna
from hpsearch.families import initial_model
from hpsearch.results.reports.document import report_document
from hpsearch.training.checkpoint import load_checkpoint
from hpsearch.training.epoch import EpochResult
from hpsearch.training.history import read_history
from hpsearch.training.memory import is_out_of_memory
from hpsearch.training.probe import Choice
from hpsearch.training.settings import Setting, Wanted
from hpsearch.training.trainer import train
from hpsearch.training.tuning import device_name, model_key

CPU = torch.device("cpu")

FAMILY = '''
"""Trains on a few images at a time only: the memory is short from some step on."""

import torch
from torch import nn
from hpsearch import Family, ScheduledDropout, StagedModel, ask_start, suggest_training


class Picky(nn.Module):
    def __init__(self):
        super().__init__()
        self.steps = 0

    def forward(self, x):
        if self.training:
            self.steps += 1
            if len(x) > MOST and self.steps > FROM:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return x


def suggest(s, shape):
    start = ask_start(s, shape)
    return suggest_training(s, start, options={}, stages=2, most_stages=2, dropout=True)


def build(options, shape, n_classes):
    pixels = shape.channels * shape.height * shape.width
    body = nn.Sequential(nn.Flatten(), nn.Linear(pixels, 16), NORM, ScheduledDropout())
    return StagedModel({"body": body, "head": nn.Sequential(Picky(), nn.Linear(16, n_classes))})


FAMILY = Family(
    summary="is short of memory",
    suggest=suggest,
    build=build,
    defaults=({"optimizer": "adamw", "lr": 0.003},),
)
'''

FIXED = {
    "optimizer": "adamw",
    "batch_size": 32,
    "train_images": 96,  # three steps an epoch
    "dropout_schedule": "constant",
}


@pytest.fixture
def picky(tmp_path: Path) -> Callable[..., StudySpec]:
    """A search in a family for which the memory is enough for `most` images only."""

    def make(
        most: int, *, after: int = 0, norm: str = "nn.ReLU()", trials: int = 1, **changes: Any
    ) -> StudySpec:
        path = tmp_path / "picky.py"
        source = FAMILY.replace("MOST", str(most)).replace("FROM", str(after))
        path.write_text(source.replace("NORM", norm), encoding="utf-8")
        spec = StudySpec(
            name="short",
            families=(str(path),),
            trials=trials,
            epochs=3,
            checkpoint_every=1,
            artifacts="none",
        )
        overrides = {**FIXED, **changes.pop("overrides", {})}
        return dataclasses.replace(spec, overrides=overrides, **changes)

    return make


@pytest.fixture
def shortages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What of trials ran out of memory, in words: the errors themselves would keep its frames."""
    found: list[str] = []

    def noted(error: BaseException) -> bool:
        if is_out_of_memory(error):
            found.append(repr(error))
        return is_out_of_memory(error)

    monkeypatch.setattr(trial_module, "is_out_of_memory", noted)
    return found


class Watch:
    """Notes the attempts and their epochs; presses Ctrl-C after some of these."""

    def __init__(self, *, stop_after: int = -1) -> None:
        self.attempts: list[list[int]] = []
        self.left = stop_after

    def __call__(self, event: Event) -> None:
        if isinstance(event, TrialStarted):
            self.attempts.append([])
        if isinstance(event, EpochFinished):
            self.attempts[-1].append(event.result.epoch)
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt


def config_of(trial: TrialRecord) -> TrainConfig:
    assert trial.config is not None
    return trial.config


def study_of(record: SearchRecord) -> optuna.Study:
    family = record.families[0]
    return optuna.load_study(
        study_name=f"{record.name}/{family}", storage=f"sqlite:///{record.runs / DATABASE}"
    )


def without_times(history: tuple[EpochResult, ...]) -> list[EpochResult]:
    return [
        dataclasses.replace(r, seconds=0, images_per_second=0, batch_losses=()) for r in history
    ]


def weights(trial: TrialRecord) -> dict[str, list[Any]]:
    assert trial.checkpoint is not None
    state = load_checkpoint(trial.checkpoint).state
    return {name: tensor.tolist() for name, tensor in state.items()}


def assert_is_trained_from_the_start(
    record: SearchRecord, trial: TrialRecord, digits: ImageDataset
) -> None:
    """To the bit what the trainer gives for the trial's configuration, parts and all."""
    config = config_of(trial)
    split = load_split(record.folder / SPLIT)
    data = DataViews.of(development_data(digits, split), CPU).view(config)
    model = initial_model(config, data.preprocessing.shape, 10)
    best: dict[str, list[Any]] = {}
    history: list[EpochResult] = []
    for result in train(model, data, config, device=CPU):
        history.append(result)
        if result.is_best:
            best = {name: tensor.tolist() for name, tensor in model.state_dict().items()}
    found = read_history(trial.folder / "history.csv")
    assert without_times(found) == without_times(tuple(history))
    assert weights(trial) == best


class TestParts:
    @pytest.mark.parametrize(
        ("norm", "warning"), [("nn.ReLU()", ""), ("nn.BatchNorm1d(16)", "BatchNorm sees the parts")]
    )
    def test_a_trial_that_does_not_fit_is_trained_in_parts(
        self,
        picky: Callable[..., StudySpec],
        tmp_path: Path,
        shortages: list[str],
        digits: ImageDataset,
        norm: str,
        warning: str,
    ) -> None:
        console = Console(record=True, width=300)
        watch = Watch()
        with PlainView(console) as view:

            def both(event: Event) -> None:
                view.watch(event)
                watch(event)

            record = search(picky(11, norm=norm), runs=tmp_path / "runs", device="cpu", watch=both)
        (trial,) = record.trials
        assert trial.state == "complete"
        config = config_of(trial)
        assert (config.batch_size, config.micro_batch) == (32, 8)
        assert len(shortages) == 2  # 32 and 16
        assert watch.attempts == [[], [], [0, 1, 2]]
        assert_is_trained_from_the_start(record, trial, digits)
        assert "batches of 32 images are taken in parts of at most 8" in trial.note
        assert ("BatchNorm" in trial.note) == bool(warning)
        assert warning in trial.note
        print_report(console, report_document(record))
        plain, report = console.export_text().split("families, best", maxsplit=1)
        assert trial.note in plain
        assert f"{trial.name}: {trial.note}" in " ".join(report.split())
        assert trial.checkpoint is not None
        exported = export(trial, tmp_path / "out", device="cpu")
        assert load_checkpoint(exported.folder / "model.pt").config == config

    def test_what_fits_is_remembered_for_models_of_the_same_shape(
        self, picky: Callable[..., StudySpec], tmp_path: Path, shortages: list[str]
    ) -> None:
        overrides = {"batch_size": (4, 16, 32), "freeze_depth": 1}
        record = search(
            picky(11, norm="nn.BatchNorm1d(16)", trials=8, epochs=1, overrides=overrides),
            runs=tmp_path / "runs",
            device="cpu",
        )
        configs = [config_of(trial) for trial in record.trials]
        # Neither the rate of dropout nor the batch has to be the same.
        assert len({config.dropout.rate for config in configs}) > 4
        assert {config.batch_size for config in configs} == {4, 16, 32}
        assert {config.freeze_depth for config in configs} == {1}
        large = [config.batch_size > 8 for config in configs]
        assert [config.micro_batch for config in configs] == [8 * parts for parts in large]
        assert [bool(trial.note) for trial in record.trials] == large
        assert not any("BatchNorm" in trial.note for trial in record.trials)  # it is frozen
        assert len(shortages) in (1, 2)  # of 32 and 16, or of 16 alone; once

    def test_models_of_other_shapes_have_limits_of_their_own(
        self, picky: Callable[..., StudySpec], tmp_path: Path, shortages: list[str]
    ) -> None:
        spec = picky(16, trials=6, epochs=1, overrides={"image_size": (8, 10)})
        record = search(spec, runs=tmp_path / "runs", device="cpu")
        sizes = [config_of(trial).input.size for trial in record.trials]
        assert len(set(sizes)) == len(shortages) == 2

    def test_an_interrupted_trial_stays_in_parts(
        self, picky: Callable[..., StudySpec], tmp_path: Path, shortages: list[str]
    ) -> None:
        spec = picky(16, norm="nn.BatchNorm1d(16)")
        whole = search(spec, runs=tmp_path / "whole", device="cpu").trials[0]
        for after in (1, 2):
            shortages.clear()
            runs = tmp_path / str(after)
            with pytest.raises(KeyboardInterrupt):
                search(spec, runs=runs, device="cpu", watch=Watch(stop_after=after))
            assert len(shortages) == 1
            assert config_of(load_search(runs).trials[0]).micro_batch == 16
            watch = Watch()
            (trial,) = search(spec, runs=runs, device="cpu", watch=watch).trials
            assert watch.attempts == [list(range(after - 1, 3))]
            assert len(shortages) == 1
            assert (trial.config, trial.note, trial.value) == (
                whole.config,
                whole.note,
                whole.value,
            )
            assert weights(trial) == weights(whole)

    def test_in_the_middle_of_a_training_it_starts_again(
        self,
        picky: Callable[..., StudySpec],
        tmp_path: Path,
        shortages: list[str],
        noted_calls: tuple[list[int], list[int | None]],
        digits: ImageDataset,
    ) -> None:
        reported, judged = noted_calls
        watch = Watch()
        spec = picky(16, after=7, norm="nn.BatchNorm1d(16)", epochs=4)  # in the third epoch
        record = search(spec, runs=tmp_path / "runs", device="cpu", watch=watch)
        (trial,) = record.trials
        assert len(shortages) == 1
        assert watch.attempts == [[0, 1], [0, 1, 2, 3]]
        assert reported == [0, 1, 2, 3]
        assert judged == [0, 1, 1, 2, 3]
        assert sorted(study_of(record).trials[0].intermediate_values) == [0, 1, 2, 3]
        assert [r.epoch for r in read_history(trial.folder / "history.csv")] == [0, 1, 2, 3]
        assert config_of(trial).micro_batch == 16
        assert_is_trained_from_the_start(record, trial, digits)


class TestNotEvenOneImage:
    def test_it_is_infeasible_and_the_family_is_given_up(
        self, picky: Callable[..., StudySpec], tmp_path: Path, shortages: list[str]
    ) -> None:
        record = search(
            picky(0, trials=2, overrides={"batch_size": 4}), runs=tmp_path / "runs", device="cpu"
        )
        assert record.finished == 0
        assert len(record.trials) == 20  # see most_aside
        assert {trial.state for trial in record.trials} == {"infeasible"}
        # Halved from 4 to one image once; later trials begin with one.
        assert len(shortages) == 3 + 19
        for trial in record.trials:
            assert trial.failure == (
                f"training on one image of 8x8x1 at a time needs more memory than "
                f"there is on {device_name(CPU)}"
            )
        for frozen in study_of(record).trials:
            assert frozen.state is optuna.trial.TrialState.PRUNED
            assert frozen.constraints == {"infeasible": 1.0}

    @pytest.mark.parametrize("name", ["build", "view"])
    def test_nor_is_it_a_failure_where_the_model_or_the_images_do_not_fit(
        self,
        picky: Callable[..., StudySpec],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        name: str,
    ) -> None:
        def full(*_: Any) -> Any:
            raise MemoryError("Unable to allocate 40.0 GiB")

        if name == "build":
            monkeypatch.setattr(trial_module, "initial_model", full)
        else:
            monkeypatch.setattr(DataViews, "view", full)
        record = search(picky(32, trials=1), runs=tmp_path / "runs", device="cpu")
        assert {trial.state for trial in record.trials} == {"infeasible"}
        assert "Unable to allocate 40.0 GiB" in record.trials[0].failure
        assert study_of(record).trials[0].constraints == {"infeasible": 1.0}


# 256 images of 64x64 pixels in 16 maps: each output of a layer takes 64 MiB, and a step keeps
# several. The limit is set when all libraries are there and warm.
SHORT = """
import resource, sys
import torch
from hpsearch import StudySpec, search

torch.set_num_threads(1)
fixed = {"blocks": 1, "convs": 1, "channels": 16, "optimizer": "sgd", "image_size": 64}

def run(name, **sizes):
    overrides = {**fixed, **sizes}
    spec = StudySpec(name=name, families=("cnn",), trials=1, epochs=1, overrides=overrides)
    return search(spec, runs=sys.argv[1], device="cpu").trials[0]

run("warm", batch_size=4, train_images=16)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 64 * 2**20, resource.RLIM_INFINITY))
trial = run("short", batch_size=256, train_images=256)
config = trial.config
print(trial.state, trial.failure or trial.note, config.batch_size, config.micro_batch, sep="|")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_a_real_shortage(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHORT, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    state, note, batch, part = done.stdout.strip().split("|")
    assert state == "complete", done.stderr[-2000:]
    assert batch == "256"
    assert 1 < int(part) < 256
    assert f"parts of at most {part}" in note


SETTINGS = StudySpec(
    families=("logistic", "cnn"),
    trials=4,
    epochs=2,
    checkpoint_every=1,
    artifacts="none",
    overrides={"train_images": 40, "blocks": 1, "convs": 1, "channels": 8},
)
BF16 = Setting(precision="bf16", memory_format="contiguous")
FP32 = Setting(precision="fp32", memory_format="channels_last")


class Probe:
    """In the place of measurements: chooses what it is told to, within what is wanted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.setting = FP32
        self.family = ""
        self.asked: list[tuple[str, Wanted]] = []
        monkeypatch.setattr(estimate, "choose_setting", self.choose)
        monkeypatch.setattr(fit, "choose_setting", self.choose)

    def choose(
        self, _: Any, config: TrainConfig, *args: Any, steps: int, batch: int, wanted: Wanted
    ) -> Choice:
        self.asked.append((config.family, wanted))
        setting = self.setting if config.family == self.family else FP32
        speeds = {str(FP32): 50.0, str(setting): 100.0}
        return Choice(
            setting=wanted.forced(setting),
            source="probe",
            step_seconds=1000.0,  # so long that each trial is worth a probe
            images_per_second=speeds,
        )


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Probe:
    return Probe(monkeypatch)


def settings_of(record: SearchRecord, family: str) -> list[Setting]:
    """Of the trials that have been started."""
    return [
        Setting.of(t.config) for t in record.trials if t.family == family and t.config is not None
    ]


def attrs_of(record: SearchRecord, family: str) -> list[dict[str, Any]]:
    """What the storage has of the settings of trials that have been started."""
    study = optuna.load_study(
        study_name=f"{record.name}/{family}", storage=f"sqlite:///{record.runs / DATABASE}"
    )
    return [hidden(trial, SETTING) for trial in study.trials if hidden(trial, CONFIG) is not None]


class TestSettings:
    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    @pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
    def test_what_is_forced_all_trials_have(
        self, tmp_path: Path, precision: Any, memory_format: Any
    ) -> None:
        spec = dataclasses.replace(
            SETTINGS, precision=precision, memory_format=memory_format, execution="eager"
        )
        record = search(spec, runs=tmp_path, device="cpu")
        forced = Setting(precision=precision, memory_format=memory_format)
        for family in spec.families:
            assert settings_of(record, family) == [forced] * 2
            assert [row["chosen_by"] for row in attrs_of(record, family)] == ["forced"] * 2

    def test_short_trials_follow_the_rules(self, tmp_path: Path) -> None:
        record = search(SETTINGS, runs=tmp_path, device="cpu")
        for family in SETTINGS.families:
            assert settings_of(record, family) == [FP32] * 2
            assert attrs_of(record, family) == 2 * [
                {
                    "setting": "fp32 channels_last",
                    "chosen_by": "rules",
                    "images_per_second": {},
                    "device": device_name(CPU),
                    "kind": "cpu",
                    "threads": torch.get_num_threads(),
                }
            ]

    def test_a_familys_precision_is_decided_when_the_search_is_made(
        self, tmp_path: Path, probe: Probe
    ) -> None:
        probe.family, probe.setting = "cnn", BF16
        stop = Watch(stop_after=4)  # the second epoch of cnn-0
        with pytest.raises(KeyboardInterrupt):
            search(SETTINGS, runs=tmp_path, device="cpu", watch=stop)
        assert [wanted.precision for _, wanted in probe.asked] == [
            *["auto", "auto"],  # the families
            "bf16",  # cnn-0; logistic-0 has no order of channels, so there is nothing to choose
        ]
        record = load_search(tmp_path)
        assert settings_of(record, "cnn")[0] == BF16
        probe.asked.clear()
        probe.setting = FP32
        watch = Watch()
        record = search(SETTINGS, runs=tmp_path, device="cpu", watch=watch)
        assert watch.attempts == [[1], [0, 1], [0, 1]]  # cnn-0 went on first
        assert [wanted.precision for _, wanted in probe.asked] == [
            "bf16",  # cnn-1; of the families and of cnn-0 it is decided
        ]
        assert settings_of(record, "logistic") == [FP32, FP32]
        first, second = settings_of(record, "cnn")
        assert first == BF16
        assert second == dataclasses.replace(FP32, precision="bf16")
        assert attrs_of(record, "cnn")[0] == {
            "setting": "bf16 NCHW",
            "chosen_by": "probe",
            "images_per_second": {"fp32 channels_last": 50.0, "bf16 NCHW": 100.0},
            "device": device_name(CPU),
            "kind": "cpu",
            "threads": torch.get_num_threads(),
        }

    @pytest.mark.parametrize("after", [1, 2])
    def test_a_trial_that_is_taken_up_again_keeps_its_setting(
        self, tmp_path: Path, probe: Probe, after: int
    ) -> None:
        spec = dataclasses.replace(SETTINGS, families=("cnn",), trials=1, epochs=3)
        contiguous = Setting(precision="fp32", memory_format="contiguous")
        probe.family, probe.setting = "cnn", contiguous
        whole = search(spec, runs=tmp_path / "whole", device="cpu").trials[0]
        with pytest.raises(KeyboardInterrupt):
            search(spec, runs=tmp_path / "runs", device="cpu", watch=Watch(stop_after=after))
        probe.setting = FP32
        probe.asked.clear()
        record = search(spec, runs=tmp_path / "runs", device="cpu")
        trial = record.trials[0]
        assert probe.asked == []  # it is decided
        assert settings_of(record, "cnn") == [contiguous]
        assert attrs_of(record, "cnn")[0]["setting"] == "fp32 NCHW"
        assert weights(trial) == weights(whole)

    def test_a_crash_before_the_setting_was_stored_changes_nothing(
        self, tmp_path: Path, probe: Probe, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spec = dataclasses.replace(SETTINGS, families=("cnn",), trials=1)
        probe.family, probe.setting = "cnn", BF16
        original = fit.hide

        def crash(study: optuna.Study, trial_id: int, key: str, value: Any) -> None:
            if key == SETTING:
                raise KeyboardInterrupt
            original(study, trial_id, key, value)

        with monkeypatch.context() as patch:
            patch.setattr(fit, "hide", crash)
            with pytest.raises(KeyboardInterrupt):
                search(spec, runs=tmp_path, device="cpu")
        record = search(spec, runs=tmp_path, device="cpu")
        assert settings_of(record, "cnn") == [BF16]
        assert attrs_of(record, "cnn")[0]["setting"] == "bf16 NCHW"

    def test_what_is_forced_is_not_asked_for(self, tmp_path: Path, probe: Probe) -> None:
        spec = dataclasses.replace(SETTINGS, memory_format="contiguous")
        search(spec, runs=tmp_path, device="cpu")
        assert {wanted.memory_format for _, wanted in probe.asked} == {"contiguous"}
        assert {wanted.execution for _, wanted in probe.asked} == {"auto"}


@pytest.mark.parametrize(("chosen", "parts"), [(FP32, 8), (BF16, 0)])
def test_a_limit_and_its_note_are_of_the_setting_that_is_chosen(
    tiny_digits: ResidentData, probe: Probe, chosen: Setting, parts: int
) -> None:
    config = TrainConfig(family="cnn", batch_size=32, epochs=1)
    model = initial_model(config, tiny_digits.preprocessing.shape, 10)
    probe.family, probe.setting = "cnn", chosen
    with quiet_optuna():
        study = optuna.create_study()
    trials = [study.ask(), study.ask()]
    pace = Pace(precision=chosen.precision, step_seconds=1000.0)
    first, second = (Fit(StudySpec(), pace, CPU, study, trial) for trial in trials)
    first._model = second._model = model_key(model, config, tiny_digits.preprocessing.shape)
    study.set_user_attr(first._limit_key(FP32.applied(config)), 8)
    decided = second.decided(config, model, tiny_digits)
    assert decided == dataclasses.replace(chosen.applied(config), micro_batch=parts)
    assert (NOTE in trials[1].user_attrs) == bool(parts)
