from __future__ import annotations

import dataclasses
import itertools
import typing
from typing import Any

import pytest
import torch
from torch import nn

from hpsearch.config import Execution, MemoryFormat, OptimizerConfig, Precision, TrainConfig
from hpsearch.training.model import StagedModel
from hpsearch.training.optimizers import OPTIMIZERS
from hpsearch.training.settings import (
    RULES,
    Setting,
    Wanted,
    possible_settings,
    rule_setting,
)

CPU = torch.device("cpu")
CONFIG = TrainConfig(family="own")
USUAL = Setting(precision="fp32", memory_format="channels_last")

EVERY = [
    Setting(precision=precision, memory_format=memory_format, execution=execution)
    for precision, memory_format, execution in itertools.product(
        typing.get_args(Precision), typing.get_args(MemoryFormat), typing.get_args(Execution)
    )
]


def plain_model() -> StagedModel:
    return StagedModel({"head": nn.Linear(4, 2)})


def conv_model() -> StagedModel:
    return StagedModel({"head": nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten())})


class TestSetting:
    @pytest.mark.parametrize("setting", EVERY, ids=str)
    def test_a_configuration_has_the_one_applied_to_it_and_keeps_all_else(
        self, setting: Setting
    ) -> None:
        config = dataclasses.replace(CONFIG, batch_size=7, seed=3, micro_batch=2)
        applied = setting.applied(config)
        assert Setting.of(applied) == setting
        assert Setting.of(config).applied(applied) == config
        assert Setting.from_dict(setting.to_dict()) == setting

    def test_each_has_a_text_of_its_own(self) -> None:
        assert len({str(setting) for setting in EVERY}) == len(EVERY)
        assert str(USUAL) == "fp32 channels_last"
        assert str(EVERY[-1]) == "bf16 NCHW compile"


class TestRules:
    @pytest.mark.parametrize("device", ["cpu", "cuda", "meta"])
    def test_the_last_one_is_for_all(self, device: str) -> None:
        assert RULES[-1].applies(torch.device(device))

    def test_a_cpu_computes_exactly_and_as_it_is(self) -> None:
        assert rule_setting(CPU) == USUAL

    @pytest.mark.parametrize("able", [True, False])
    def test_gpus_that_can_compute_in_bf16_do(
        self, monkeypatch: pytest.MonkeyPatch, able: bool
    ) -> None:
        asked: list[bool] = []

        def supported(*, including_emulation: bool) -> bool:
            asked.append(including_emulation)
            return able

        monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
        assert rule_setting(torch.device("cuda")).precision == ("bf16" if able else "fp32")
        assert asked == [False]  # what is emulated is slow

    def test_the_first_that_applies_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        first = dataclasses.replace(RULES[0], applies=lambda _: True)
        monkeypatch.setattr("hpsearch.training.settings.RULES", (first, *RULES))
        assert rule_setting(CPU) == first.setting


class TestWanted:
    @pytest.mark.parametrize("setting", EVERY, ids=str)
    def test_what_is_free_stays(self, setting: Setting) -> None:
        assert Wanted().forced(setting) == setting

    @pytest.mark.parametrize("field", ["precision", "memory_format", "execution"])
    @pytest.mark.parametrize("goal", EVERY, ids=str)
    def test_what_is_forced_changes_and_nothing_else(self, field: str, goal: Setting) -> None:
        wanted = Wanted(**{field: getattr(goal, field)})
        for setting in EVERY:
            expected = dataclasses.replace(setting, **{field: getattr(goal, field)})
            assert wanted.forced(setting) == expected


class TestPossibleSettings:
    def possible(
        self,
        model: nn.Module,
        *,
        device: torch.device = CPU,
        optimizer: str = "adamw",
        **wanted: Any,
    ) -> list[Setting]:
        config = dataclasses.replace(CONFIG, optimizer=OptimizerConfig(name=optimizer))
        settings = possible_settings(model, config, device, Wanted(**wanted))
        assert len(set(settings)) == len(settings)
        return settings

    def test_on_a_cpu_precision_and_order_are_open(self) -> None:
        settings = self.possible(conv_model())
        assert settings[0] == USUAL
        assert set(settings) == {setting for setting in EVERY if setting.execution == "eager"}

    def test_without_convolutions_order_is_not(self) -> None:
        settings = self.possible(plain_model())
        assert settings == [USUAL, dataclasses.replace(USUAL, precision="bf16")]

    def test_what_is_forced_they_all_have(self) -> None:
        assert self.possible(conv_model(), precision="bf16", memory_format="contiguous") == [
            Setting(precision="bf16", memory_format="contiguous")
        ]
        forced = self.possible(conv_model(), memory_format="contiguous")
        assert forced[0] == Setting(precision="fp32", memory_format="contiguous")
        assert {setting.memory_format for setting in forced} == {"contiguous"}
        assert len(forced) == 2
        assert {s.execution for s in self.possible(conv_model(), execution="compile")} == {
            "compile"
        }
        # Also where it makes no difference.
        (only,) = self.possible(plain_model(), precision="fp32", memory_format="contiguous")
        assert only == Setting(precision="fp32", memory_format="contiguous")

    def test_a_cpu_has_no_graphs(self) -> None:
        assert self.possible(conv_model(), execution="graph") == self.possible(
            conv_model(), execution="eager"
        )

    @pytest.fixture
    def gpu(self, monkeypatch: pytest.MonkeyPatch) -> torch.device:
        """One that is not there: only asked for what it can."""
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
        return torch.device("cuda")

    @pytest.mark.parametrize("row", OPTIMIZERS, ids=lambda row: row.name)
    def test_on_a_gpu_steps_can_be_graphed_where_the_optimizer_can(
        self, gpu: torch.device, row: Any
    ) -> None:
        settings = self.possible(conv_model(), device=gpu, optimizer=row.name)
        usual = Setting(precision="bf16", memory_format="channels_last")
        assert settings[0] == usual
        graphed = {s for s in EVERY if s.execution == "graph"} if row.graph is not None else set()
        eager = {s for s in EVERY if s.execution == "eager"}
        compiled = dataclasses.replace(usual, execution="compile")
        assert set(settings) == eager | graphed | {compiled}
        forced = self.possible(conv_model(), device=gpu, optimizer=row.name, execution="graph")
        assert {s.execution for s in forced} == ({"graph"} if graphed else {"eager"})
