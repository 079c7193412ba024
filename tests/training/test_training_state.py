"""Training states: a training that goes on from one is the same as if it had never stopped."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hpsearch.config import (
    DropoutConfig,
    EarlyStopping,
    LossConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
)
from hpsearch.data.augment import AUGMENTATIONS
from hpsearch.data.dataset import ImageDataset
from hpsearch.data.resident import ResidentData
from hpsearch.data.splits import SplitSpec, development_data, make_split
from hpsearch.data.views import DataViews
from hpsearch.errors import CheckpointError
from hpsearch.families import build_model
from hpsearch.training.checkpoint import load_checkpoint
from hpsearch.training.content import write_content
from hpsearch.training.dropout import DROPOUT_SCHEDULES
from hpsearch.training.epoch import EpochResult
from hpsearch.training.model import StagedModel
from hpsearch.training.objectives import OBJECTIVES
from hpsearch.training.optimizers import OPTIMIZERS, OptimizerInfo
from hpsearch.training.schedules import SCHEDULES
from hpsearch.training.state import StateFiles, TrainingState, load_state, save_state
from hpsearch.training.trainer import Training

CPU = torch.device("cpu")
CONFIG = TrainConfig(
    family="cnn",
    options={"blocks": 1, "convs": 1, "channels": 4, "hidden": 8},
    optimizer=OptimizerConfig(lr=1e-2, weight_decay=1e-2),
    dropout=DropoutConfig(rate=0.2),
    augment={"rotate": 10.0, "mixup": 0.4, "erase": 0.3},
    grad_clip=1.0,
    ema=0.9,
    batch_size=32,
    epochs=4,
    seed=1,
)


def epoch_result(epoch: int = 0, **changes: Any) -> EpochResult:
    values: dict[str, Any] = {
        field.name: 0.1 * number for number, field in enumerate(dataclasses.fields(EpochResult))
    }
    values |= {"epoch": epoch, "is_best": epoch == 0, "batch_losses": (1 / 3, 2.5 + epoch)}
    return EpochResult(**{**values, **changes})


def training_state(**changes: Any) -> TrainingState:
    """Small enough to flip every bit of, with whatever an optimizer may keep."""
    values: dict[str, Any] = {
        "config": CONFIG,
        "history": (epoch_result(0), epoch_result(1)),
        "model": {"weight": torch.rand(2, 3, generator=torch.Generator().manual_seed(0))},
        "optimizer": {
            "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.tensor([-0.0, 1e-38])}},
            "param_groups": [
                {
                    "lr": 0.1 + 0.2,
                    "betas": (0.9, 0.999),
                    "amsgrad": False,
                    "fused": None,
                    "params": [0, 1],
                }
            ],
        },
        "average": {"steps": 7, "weights": [torch.tensor([0.5])]},
    }
    return TrainingState(**{**values, **changes})


def same(first: Any, second: Any) -> bool:
    """Equal to the bit, types and order included."""
    if isinstance(first, TrainingState | EpochResult):
        names = [field.name for field in dataclasses.fields(first)]
        return type(first) is type(second) and all(
            same(getattr(first, name), getattr(second, name)) for name in names
        )
    if type(first) is not type(second):
        return False
    if isinstance(first, Tensor):
        return first.dtype == second.dtype and torch.equal(
            first.reshape(-1).view(torch.uint8), second.reshape(-1).view(torch.uint8)
        )
    if isinstance(first, dict):
        return list(first) == list(second) and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, float):
        return first.hex() == second.hex()
    return bool(first == second)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_state(tmp_path / "state.pt", training_state())
    return tmp_path / "state.pt"


class TestFile:
    def test_it_is_read_as_it_was_written(self, saved: Path) -> None:
        assert same(load_state(saved), training_state())

    @pytest.mark.parametrize(
        "changes",
        [
            {"history": ()},
            {"average": None},
            {"history": (epoch_result(batch_losses=()), epoch_result(1))},
            {"optimizer": {"state": {}, "param_groups": []}},
            {"optimizer": {"a": {"b": [(), [], {}, {1: {"dict": ["tensor", ("x",)]}}, "tensor"]}}},
            {"optimizer": {"n": (2**70, -1, True, None, -0.0, math.inf, math.nan, "ü")}},
            {"model": {"w": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)}},
            {"model": {"w": torch.rand(3, requires_grad=True).detach().bfloat16()}},
            {"config": dataclasses.replace(CONFIG, early_stopping=EarlyStopping(patience=2))},
        ],
    )
    def test_anything_of_plain_types_is_kept(self, tmp_path: Path, changes: dict[str, Any]) -> None:
        save_state(tmp_path / "state.pt", training_state(**changes))
        assert same(load_state(tmp_path / "state.pt"), training_state(**changes))

    @given(numbers=st.lists(st.floats(), min_size=1, max_size=20))
    def test_numbers_of_the_history_keep_all_their_bits(
        self, tmp_path_factory: pytest.TempPathFactory, numbers: list[float]
    ) -> None:
        # A not-a-number is written as one, whatever else its bits say.
        numbers = [math.nan if math.isnan(number) else number for number in numbers]
        state = training_state(
            history=(epoch_result(val_loss=numbers[0], batch_losses=tuple(numbers)),)
        )
        path = tmp_path_factory.mktemp("state") / "state.pt"
        save_state(path, state)
        assert same(load_state(path), state)

    def test_tensors_keep_their_order_in_memory(self, tmp_path: Path) -> None:
        tensor = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
        save_state(tmp_path / "state.pt", training_state(model={"w": tensor}))
        assert load_state(tmp_path / "state.pt").model["w"].stride() == tensor.stride()

    def test_what_is_not_plain_is_refused_and_the_old_file_stands(self, saved: Path) -> None:
        odd = training_state(optimizer={"state": {0: {"history": {1, 2}}}})
        with pytest.raises(TypeError, match="set"):
            save_state(saved, odd)
        assert same(load_state(saved), training_state())
        assert [path.name for path in saved.parent.iterdir()] == ["state.pt"]

    def test_a_truncated_file_is_refused(self, saved: Path) -> None:
        whole = saved.read_bytes()
        for length in (*range(0, len(whole), 97), len(whole) - 22, len(whole) - 1):
            saved.write_bytes(whole[:length])
            with pytest.raises(CheckpointError):
                load_state(saved)

    def test_a_flipped_bit_is_found_or_does_no_harm(self, saved: Path) -> None:
        whole = saved.read_bytes()
        refused = 0
        bits = np.random.default_rng(0).choice(8 * len(whole), 800, replace=False).tolist()
        for bit in bits:
            content = bytearray(whole)
            content[bit // 8] ^= 1 << bit % 8
            saved.write_bytes(content)
            try:
                assert same(load_state(saved), training_state()), f"bit {bit}"
            except CheckpointError:
                refused += 1
        assert refused > 200

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ('"lr", 0.30', '"lr", 0.31'),
            ('"steps", 7', '"steps", 8'),
            ("0.9, 0.999", "0.9, 0.998"),
            ('"val_loss": 0.5', '"val_loss": 0.4'),
            ('"seed": 1', '"seed": 2'),
        ],
    )
    def test_a_changed_number_does_not_pass_under_the_old_hash(
        self, saved: Path, old: str, new: str
    ) -> None:
        content = torch.load(saved, weights_only=True)
        assert content["document"].count(old) >= 1
        content["document"] = content["document"].replace(old, new)
        torch.save(content, saved)
        with pytest.raises(CheckpointError, match="SHA-256"):
            load_state(saved)

    def test_every_tensor_is_under_the_hash(self, saved: Path) -> None:
        content = torch.load(saved, weights_only=True)
        assert len(content["state"]) == 5  # weight, step, exp_avg, average, losses
        for name, tensor in content["state"].items():
            other = tensor.clone()
            other.reshape(-1).view(torch.uint8)[0] ^= 1
            torch.save({**content, "state": {**content["state"], name: other}}, saved)
            with pytest.raises(CheckpointError, match="SHA-256"):
                load_state(saved)

    @pytest.mark.parametrize("content", [b"", b"PK", bytes(1000), b"epoch,step,loss\n"])
    def test_what_is_no_file_of_torch_is_refused(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "state.pt").write_bytes(content)
        with pytest.raises(CheckpointError, match="not a whole training state"):
            load_state(tmp_path / "state.pt")

    def test_a_missing_file_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="no training state at"):
            load_state(tmp_path / "state.pt")

    @pytest.mark.parametrize(
        "error",
        [
            PermissionError(13, "Permission denied"),
            OSError(5, "Input/output error"),
            MemoryError(),
            RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        ],
        ids=repr,
    )
    def test_what_cannot_be_read_just_now_is_not_called_damaged(
        self, saved: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        monkeypatch.setattr(torch, "load", mock.Mock(side_effect=error))
        with pytest.raises(OSError):  # noqa: PT011 (of any kind)
            load_state(saved)

    def test_a_file_that_is_removed_just_now_is_a_missing_one(
        self, saved: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch, "load", mock.Mock(side_effect=FileNotFoundError))
        with pytest.raises(CheckpointError, match="no training state at"):
            load_state(saved)

    def test_a_file_of_another_kind_is_named(self, saved: Path) -> None:
        with pytest.raises(CheckpointError, match="hpsearch-training-state-1"):
            load_checkpoint(saved)

    @pytest.mark.parametrize(
        "change",
        [
            {"config": {**CONFIG.to_dict(), "speed": 1}},
            {"config": {}},
            {"history": [{"epoch": 0, "batch_losses": 1}]},
            {"content": {"dict": []}},
            {"content": {"tensor": "9"}},
            {"content": {"a": 1, "b": 2}},
        ],
    )
    def test_whole_files_of_another_version_are_refused(
        self, saved: Path, change: dict[str, Any]
    ) -> None:
        content = torch.load(saved, weights_only=True)
        write_content(saved, {**json.loads(content["document"]), **change}, content["state"])
        with pytest.raises(CheckpointError, match="does not know") as caught:
            load_state(saved)
        assert "\n" not in str(caught.value)


class TestFiles:
    def names(self, folder: Path) -> list[str]:
        return sorted(path.name for path in folder.iterdir())

    def save(self, folder: Path, *epochs: int) -> None:
        for number in epochs:
            history = tuple(epoch_result(epoch) for epoch in range(number))
            StateFiles(folder).save(training_state(history=history))

    def loaded(self, folder: Path) -> list[int]:
        return [len(state.history) for state in StateFiles(folder).whole()]

    def test_the_newest_two_are_kept(self, tmp_path: Path) -> None:
        self.save(tmp_path, 1)
        assert self.names(tmp_path) == ["state-1.pt"]
        self.save(tmp_path, 8, 9, 10)  # by number, not by name
        assert self.names(tmp_path) == ["state-10.pt", "state-9.pt"]
        assert self.loaded(tmp_path) == [10, 9]

    @pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "other"])
    def test_the_one_before_stands_in_for_a_damaged_one(self, tmp_path: Path, damage: str) -> None:
        self.save(tmp_path, 2, 3)
        newest = tmp_path / "state-3.pt"
        content = bytearray(newest.read_bytes())
        weight = training_state().model["weight"].numpy().tobytes()
        content[content.index(weight)] ^= 1
        newest.write_bytes(
            {
                "truncated": newest.read_bytes()[:-100],
                "flipped": bytes(content),
                "empty": b"",
                "other": b"epoch,step,loss\n",
            }[damage]
        )
        assert self.loaded(tmp_path) == [2]
        (tmp_path / "state-2.pt").unlink()
        assert self.loaded(tmp_path) == []

    def test_one_that_cannot_be_read_just_now_is_not_passed_over(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.save(tmp_path, 2, 3)
        monkeypatch.setattr(torch, "load", mock.Mock(side_effect=OSError(5, "Input/output error")))
        with pytest.raises(OSError, match="Input/output"):
            self.loaded(tmp_path)

    def test_what_was_passed_over_does_not_take_the_place_of_a_whole_one(
        self, tmp_path: Path
    ) -> None:
        self.save(tmp_path, 5, 9)
        (tmp_path / "state-9.pt").write_bytes(b"")
        self.save(tmp_path, 7)  # gone on with from 5
        assert self.names(tmp_path) == ["state-5.pt", "state-7.pt"]

    def test_other_files_are_left_alone(self, tmp_path: Path) -> None:
        others = ["checkpoint.pt", "state-1.pt.bak", "state-one.pt", "state.pt"]
        for name in others:
            (tmp_path / name).write_bytes(b"")
        self.save(tmp_path, 1, 2, 3)
        StateFiles(tmp_path).clear()
        assert self.names(tmp_path) == others

    def test_a_folder_without_any(self, tmp_path: Path) -> None:
        assert self.loaded(tmp_path) == []
        StateFiles(tmp_path).clear()
        assert self.loaded(tmp_path / "missing") == []


def options_of(row: Any) -> dict[str, Any]:
    return {"rates": (0.01, 0.005, 0.002)} if "rates" in row.options else {}


def schedule(row: Any) -> ScheduleConfig:
    patience = {"patience": 0} if row.name == "plateau" else {}
    return ScheduleConfig(name=row.name, warmup=0.2, options={**options_of(row), **patience})


def dropout(row: Any) -> DropoutConfig:
    rates = {"rates": (0.1, 0.3)} if "rates" in row.options else {}
    gap = {"gap": -0.5} if row.name == "adaptive" else {}
    return DropoutConfig(schedule=row.name, rate=0.3, options={**rates, **gap})


CONFIGS = {
    **{
        f"optimizer {row.name}": {
            "optimizer": dataclasses.replace(CONFIG.optimizer, name=row.name, stage_decay=0.5)
        }
        for row in OPTIMIZERS
    },
    **{f"schedule {row.name}": {"schedule": schedule(row)} for row in SCHEDULES},
    **{f"dropout {row.name}": {"dropout": dropout(row)} for row in DROPOUT_SCHEDULES},
    **{f"augmentation {row.name}": {"augment": {row.name: row.high}} for row in AUGMENTATIONS},
    **{f"objective {row.name}": {"objective": row.name} for row in OBJECTIVES},
    "no average": {"ema": 0.0},
    "momentum": {"optimizer": OptimizerConfig(name="rmsprop", options={"momentum": 0.9})},
    "class weights": {"balance": "weights", "loss": LossConfig(name="focal")},
    "by class": {"balance": "sampling", "repeat": 2},
    "frozen": {"freeze_depth": 1},
    "bf16": {"precision": "bf16"},
    "early stopping": {"early_stopping": EarlyStopping(patience=1, min_gain=0.05), "epochs": 9},
}


def built(config: TrainConfig, data: ResidentData) -> StagedModel:
    return build_model(config, data.preprocessing.shape, len(data.classes))


def weights(model: StagedModel) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def without_times(history: Iterable[EpochResult]) -> list[EpochResult]:
    return [dataclasses.replace(r, seconds=0.0, images_per_second=0.0) for r in history]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_training_goes_on_as_if_it_had_not_stopped(
    tmp_path: Path, tiny_digits: ResidentData, name: str
) -> None:
    config = dataclasses.replace(CONFIG, **CONFIGS[name])
    model = built(config, tiny_digits)
    history: list[EpochResult] = []
    evaluated: list[dict[str, Tensor]] = []
    for result in Training(model, tiny_digits, config, device=CPU).run():
        history.append(result)
        evaluated.append(weights(model))
    assert len(history) == config.epochs or name == "early stopping"

    training = Training(built(config, tiny_digits), tiny_digits, config, device=CPU)
    files = []
    for result in training.run():  # asking for its state changes nothing
        assert without_times([result]) == without_times([history[result.epoch]])
        files.append(tmp_path / f"{result.epoch}.pt")
        save_state(files[-1], training.state())

    for epoch in (1, len(history) - 1):
        model = built(dataclasses.replace(config, seed=9), tiny_digits)
        state = load_state(files[epoch])
        resumed = Training(model, tiny_digits, config, device=CPU, resume=state)
        assert without_times(resumed.state().history) == without_times(history[: epoch + 1])
        rest = []
        for result in resumed.run():
            rest.append(result)
            assert same(weights(model), evaluated[result.epoch])
        assert without_times(rest) == without_times(history[epoch + 1 :])


def test_a_training_that_is_over_has_the_weights_that_were_evaluated(
    tiny_digits: ResidentData,
) -> None:
    config = dataclasses.replace(CONFIG, epochs=1)
    model, other = built(config, tiny_digits), built(config, tiny_digits)
    training = Training(model, tiny_digits, config, device=CPU)
    assert len(list(training.run())) == 1
    resumed = Training(other, tiny_digits, config, device=CPU, resume=training.state())
    assert list(resumed.run()) == []
    assert same(weights(other), weights(model))  # the averaged ones


def test_a_state_before_the_first_epoch_is_one_too(
    tmp_path: Path, tiny_digits: ResidentData
) -> None:
    training = Training(built(CONFIG, tiny_digits), tiny_digits, CONFIG, device=CPU)
    save_state(tmp_path / "state.pt", training.state())
    other = built(dataclasses.replace(CONFIG, seed=2), tiny_digits)
    resumed = Training(
        other, tiny_digits, CONFIG, device=CPU, resume=load_state(tmp_path / "state.pt")
    )
    assert without_times(list(resumed.run())) == without_times(list(training.run()))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("row", OPTIMIZERS, ids=lambda row: row.name)
def test_a_state_of_a_gpu_goes_on_there_and_on_a_cpu(
    tmp_path: Path, digits: ImageDataset, row: OptimizerInfo
) -> None:
    optimizer = dataclasses.replace(CONFIG.optimizer, name=row.name)
    config = dataclasses.replace(CONFIG, optimizer=optimizer, augment={}, dropout=DropoutConfig())
    split = make_split(digits, SplitSpec())
    results = {}
    for device in (torch.device("cuda"), CPU):
        data = DataViews.of(development_data(digits, split), device).view(config)
        resume = load_state(tmp_path / "state.pt") if device == CPU else None
        training = Training(built(config, data), data, config, device=device, resume=resume)
        run = training.run()
        if resume is None:
            next(run), next(run)
            save_state(tmp_path / "state.pt", training.state())
        results[device.type] = list(run)
    assert [result.epoch for result in results["cpu"]] == [2, 3]
    for ours, theirs in zip(results["cpu"], results["cuda"], strict=True):
        assert ours.train_loss == pytest.approx(theirs.train_loss, rel=0.1)
        assert ours.lr == theirs.lr
