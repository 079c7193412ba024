from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hpsearch.config import OptimizerConfig, TrainConfig
from hpsearch.data.batches import TrainBatch
from hpsearch.data.dataset import ImageDataset, ImageShape
from hpsearch.data.preprocessing import Preprocessing
from hpsearch.data.resident import ResidentData, ResidentImages
from hpsearch.training import probe
from hpsearch.training.model import StagedModel
from hpsearch.training.probe import (
    COMPILE_SECONDS,
    MARGIN,
    PROBE_SECONDS,
    WORTH,
    Choice,
    choose_setting,
    epoch_seconds,
    is_worth_probing,
)
from hpsearch.training.settings import Setting, Wanted, possible_settings
from hpsearch.training.tuning import Tuning

CPU = torch.device("cpu")
SHAPE = ImageShape(6, 6, 1)
CONFIG = TrainConfig(family="own", optimizer=OptimizerConfig(lr=0.01), batch_size=32)
USUAL = "fp32 channels_last"
BF16 = "bf16 channels_last"
NCHW = "fp32 NCHW"
NCHW_BF16 = "bf16 NCHW"
LONG = 10**9


def conv_model() -> StagedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.ReLU())
        head = nn.Sequential(nn.Flatten(), nn.Linear(4 * 16, 3))
    return StagedModel({"block": block, "head": head})


@pytest.fixture
def tuning(tmp_path: Path) -> Tuning:
    return Tuning(tmp_path / "tuning.json")


class Bench:
    """Stands for the measurements: tells speeds that are made up, and notes what it was asked."""

    def __init__(self, speeds: dict[str, float | Exception]) -> None:
        self.asked: list[list[str]] = []
        self.speeds = {USUAL: 3200.0, **speeds}

    def compare(self, settings: Sequence[Setting], least_seconds: float) -> dict[str, float]:
        names = [str(setting) for setting in settings]
        self.asked.append(names)
        assert least_seconds == (PROBE_SECONDS if len(settings) > 1 else 0.0)
        found = {}
        for name in names:
            speed = self.speeds.get(name, 1.0)
            if isinstance(speed, Exception):
                raise speed
            found[name] = speed
        return found


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Bench]:
    def install(speeds: dict[str, Any] | None = None) -> Bench:
        made = Bench(speeds or {})
        monkeypatch.setattr(
            probe._Bench,
            "compare",
            lambda _, settings, least_seconds: made.compare(settings, least_seconds),
        )
        return made

    return install


def choose(tuning: Tuning, *, steps: int = LONG, **changes: Any) -> Choice:
    wanted = changes.pop("wanted", Wanted())
    model = changes.pop("model", None) or conv_model()
    config = dataclasses.replace(CONFIG, **changes)
    return choose_setting(
        model,
        config,
        SHAPE,
        3,
        CPU,
        steps=steps,
        batch=config.batch_size,
        wanted=wanted,
        tuning=tuning,
    )


class TestWorth:
    def test_short_trainings_are_not(self) -> None:
        assert not is_worth_probing(WORTH * PROBE_SECONDS)
        assert is_worth_probing(WORTH * PROBE_SECONDS * 1.01)

    def test_seconds_decide(self, tuning: Tuning, bench: Callable[..., Bench]) -> None:
        # 0.01 seconds a step.
        made = bench({BF16: 1e9})
        enough = round(WORTH * PROBE_SECONDS / 0.01)
        short = choose(tuning, steps=enough)
        assert short.setting == Setting(precision="fp32", memory_format="channels_last")
        assert (short.source, short.images_per_second) == ("rules", {})
        assert short.step_seconds == pytest.approx(0.01)
        assert made.asked == [[USUAL]]
        worth = choose(tuning, steps=enough + 1)
        assert str(worth.setting) == BF16
        assert worth.source == "probe"
        assert worth.step_seconds == pytest.approx(0.01)
        assert len(made.asked) == 2

    def test_few_long_steps_are_not_either(
        self, tuning: Tuning, bench: Callable[..., Bench]
    ) -> None:
        # Each setting is tried three times at least, however long that takes.
        bench({USUAL: 1.0, BF16: 1e9})
        enough = WORTH * 3 * 4
        assert choose(tuning, steps=enough).source == "rules"
        assert choose(tuning, steps=enough + 1).source == "probe"

    def test_compilers_are_for_the_longest_trainings(
        self, tuning: Tuning, bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def with_compiler(*args: Any) -> list[Setting]:
            settings = possible_settings(*args)
            return [*settings, dataclasses.replace(settings[0], execution="compile")]

        monkeypatch.setattr(probe, "possible_settings", with_compiler)
        compiled = f"{USUAL} compile"
        made = bench({compiled: 1e9})
        enough = round(WORTH * COMPILE_SECONDS / 0.01)
        assert str(choose(tuning, steps=enough - 1).setting) == USUAL
        assert compiled not in made.asked[-1]
        assert str(choose(tuning, steps=enough).setting) == compiled


class TestChoice:
    def test_the_fastest_wins(self, tuning: Tuning, bench: Callable[..., Bench]) -> None:
        speeds = {USUAL: 3200.0, BF16: 4800.0, NCHW: 6400.0, NCHW_BF16: 100.0}
        bench(speeds)
        choice = choose(tuning)
        assert str(choice.setting) == NCHW
        assert choice.images_per_second == speeds
        assert choice.images_per_second[NCHW] == pytest.approx(2.0 * speeds[USUAL])

    @pytest.mark.parametrize(("more", "expected"), [(1.0001, BF16), (0.9999, USUAL)])
    def test_by_more_than_the_margin(
        self, tuning: Tuning, bench: Callable[..., Bench], more: float, expected: str
    ) -> None:
        bench({BF16: more * 3200 / (1 - MARGIN)})
        choice = choose(tuning)
        assert str(choice.setting) == expected
        assert choice.source == "probe"

    def test_a_tie_stays_with_the_usual(self, tuning: Tuning, bench: Callable[..., Bench]) -> None:
        bench(dict.fromkeys((USUAL, BF16, NCHW, NCHW_BF16), 3200.0))
        choice = choose(tuning)
        assert str(choice.setting) == USUAL
        assert set(choice.images_per_second.values()) == {3200.0}

    def test_what_did_not_run_is_not_chosen(
        self, tuning: Tuning, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(probe._Bench, "compare", lambda *_: {USUAL: 3200.0, NCHW: 9000.0})
        assert str(choose(tuning).setting) == NCHW

    def test_what_is_forced_is_kept(self, tuning: Tuning, bench: Callable[..., Bench]) -> None:
        made = bench({NCHW_BF16: 1e9, BF16: 9e9})
        forced = choose(tuning, wanted=Wanted(memory_format="contiguous"))
        assert str(forced.setting) == NCHW_BF16
        assert made.asked == [[NCHW], [NCHW, NCHW_BF16]]

    def test_where_there_is_no_choice_nothing_is_measured(
        self, tuning: Tuning, bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = bench()
        wanted = Wanted(precision="bf16", memory_format="contiguous")
        choice = choose(tuning, wanted=wanted)
        assert (str(choice.setting), choice.source) == (NCHW_BF16, "forced")
        monkeypatch.setattr(
            probe,
            "possible_settings",
            lambda *_: [Setting(precision="fp32", memory_format="channels_last")],
        )
        assert choose(tuning).source == "rules"
        assert made.asked == []


class TestMemory:
    def test_the_second_time_nothing_is_measured(
        self, tuning: Tuning, bench: Callable[..., Bench]
    ) -> None:
        made = bench({BF16: 9000.0})
        first = choose(tuning)
        assert len(made.asked) == 2
        made.speeds.update({BF16: 1.0, USUAL: 1.0})
        assert choose(tuning) == first
        assert choose(tuning, seed=7, epochs=3) == first
        assert len(made.asked) == 2
        choose(tuning, batch_size=64)  # is another question
        assert len(made.asked) > 2

    def test_a_shorter_training_uses_what_a_longer_one_measured_of_a_step(
        self, tuning: Tuning, bench: Callable[..., Bench]
    ) -> None:
        made = bench()
        choose(tuning)
        made.asked.clear()
        choice = choose(tuning, steps=1)
        assert (choice.source, choice.step_seconds) == ("rules", pytest.approx(0.01))
        assert made.asked == []

    def test_another_force_is_another_question(
        self, tuning: Tuning, bench: Callable[..., Bench]
    ) -> None:
        made = bench({BF16: 9000.0, NCHW_BF16: 8000.0})
        assert str(choose(tuning).setting) == BF16
        forced = choose(tuning, wanted=Wanted(memory_format="contiguous"))
        assert str(forced.setting) == NCHW_BF16
        assert [NCHW, NCHW_BF16] in made.asked

    @pytest.mark.parametrize(
        "row",
        [{}, {BF16: 9000.0}, {USUAL: 0.0}, {USUAL: float("nan")}, {USUAL: -1.0}, {USUAL: "a"}, []],
        ids=repr,
    )
    def test_a_damaged_answer_is_measured_anew(
        self, tuning: Tuning, bench: Callable[..., Bench], row: Any
    ) -> None:
        made = bench({BF16: 9000.0})
        first = choose(tuning)
        rows = json.loads(tuning._path.read_text(encoding="utf-8"))
        assert len(rows) == 2
        tuning._path.write_text(json.dumps(dict.fromkeys(rows, row)), encoding="utf-8")
        assert choose(tuning) == first
        assert len(made.asked) == 4
        assert choose(tuning) == first
        assert len(made.asked) == 4

    def test_by_default_it_is_the_users(self, bench: Callable[..., Bench]) -> None:
        made = bench()
        for _ in range(2):
            choose_setting(
                conv_model(),
                dataclasses.replace(CONFIG, family="of the default file"),
                SHAPE,
                3,
                CPU,
                steps=LONG,
                batch=CONFIG.batch_size,
            )
        assert len(made.asked) == 2


class TestFailures:
    @pytest.mark.parametrize(
        "error",
        [
            torch.OutOfMemoryError("CUDA out of memory"),
            MemoryError(),
            RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        ],
        ids=repr,
    )
    @pytest.mark.parametrize("where", [USUAL, NCHW])
    def test_without_memory_for_it_the_usual_is_used(
        self, tuning: Tuning, bench: Callable[..., Bench], error: Exception, where: str
    ) -> None:
        bench({where: error, BF16: 1e9})
        choice = choose(tuning)
        assert str(choice.setting) == USUAL
        assert (choice.source, choice.images_per_second) == ("rules", {})
        assert (choice.step_seconds > 0) == (where == NCHW)

    def test_other_errors_are_told(self, tuning: Tuning, bench: Callable[..., Bench]) -> None:
        bench({USUAL: RuntimeError("shapes cannot be multiplied")})
        with pytest.raises(RuntimeError, match="multiplied"):
            choose(tuning)

    def test_a_forced_compiler_that_does_not_work_says_why(
        self, tuning: Tuning, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(_: nn.Module) -> nn.Module:
            raise RuntimeError("no compiler here")

        monkeypatch.setattr(torch, "compile", broken)
        with pytest.raises(RuntimeError, match="no compiler here"):
            choose(tuning, wanted=Wanted(execution="compile"))

    def test_one_that_is_only_tried_is_left_out(
        self, tuning: Tuning, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(_: nn.Module) -> nn.Module:
            raise RuntimeError("no compiler here")

        def with_compiler(*args: Any) -> list[Setting]:
            settings = possible_settings(*args)
            return [*settings[:2], dataclasses.replace(settings[0], execution="compile")]

        monkeypatch.setattr(torch, "compile", broken)
        monkeypatch.setattr(probe, "possible_settings", with_compiler)
        monkeypatch.setattr(probe, "PROBE_SECONDS", 0.02)
        monkeypatch.setattr(probe, "_HOPELESS", math.inf)  # whatever else the machine does
        choice = choose(tuning)
        assert choice.source == "probe"
        assert list(choice.images_per_second) == [USUAL, NCHW]


class TestMeasuring:
    @pytest.fixture(autouse=True)
    def _short(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(probe, "PROBE_SECONDS", 0.05)
        monkeypatch.setattr(probe, "_HOPELESS", math.inf)  # whatever else the machine does

    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize("micro_batch", [0, 10])
    def test_it_leaves_no_trace(self, tuning: Tuning, training: bool, micro_batch: int) -> None:
        model = conv_model().train(training)
        before = copy.deepcopy(model.state_dict())
        torch.manual_seed(3)
        state = torch.get_rng_state()
        choice = choose(tuning, model=model, ema=0.9, balance="weights", micro_batch=micro_batch)
        assert torch.equal(torch.get_rng_state(), state)
        assert model.training == training
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, before[name]), name
            assert tensor.stride() == before[name].stride()
        assert all(p.grad is None and p.requires_grad for p in model.parameters())
        assert list(choice.images_per_second) == [USUAL, NCHW, BF16, NCHW_BF16]
        assert min(choice.images_per_second.values()) > 0
        assert choice.source == "probe"

    def test_what_is_frozen_is_not_trained_in_it(
        self, tuning: Tuning, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        frozen: list[list[bool]] = []

        class Spy(probe.Step):
            def __init__(self, model: StagedModel, *args: Any) -> None:
                frozen.append([not p.requires_grad for p in model.stages[0].parameters()])
                assert not model.stages[0].training
                super().__init__(model, *args)

        monkeypatch.setattr(probe, "Step", Spy)
        choose(tuning, freeze_depth=1)
        assert len(frozen) == 5
        assert all(itertools.chain(*frozen))

    def test_settings_take_turns_on_batches_of_their_own_order(
        self, tuning: Tuning, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        turns: list[tuple[str, bool]] = []

        class Spy(probe.Step):
            def __call__(self, batch: TrainBatch, lr: float) -> tuple[Tensor, Tensor]:
                assert batch.images.shape == (32, 3, 6, 6)
                name = str(Setting.of(self._config))
                last = batch.images.is_contiguous(memory_format=torch.channels_last)
                kernel = next(p for p in self._trained if p.ndim == 4)
                assert last == kernel.is_contiguous(memory_format=torch.channels_last)
                turns.append((name, last))
                return super().__call__(batch, lr)

        monkeypatch.setattr(probe, "Step", Spy)
        model = StagedModel({"head": nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten())})
        choose_setting(
            model,
            CONFIG,
            ImageShape(6, 6, 3),
            32,
            CPU,
            steps=LONG,
            batch=CONFIG.batch_size,
            tuning=tuning,
        )
        names = [name for name, _ in turns]
        assert names[:3] == [USUAL] * 3  # the usual one alone
        assert names[3] == USUAL  # what is slower by far is left out after two steps
        in_turn = names[4 + 2 * 4 :]
        kept = list(dict.fromkeys(in_turn))
        assert kept[0] == USUAL
        assert in_turn == kept * (len(in_turn) // len(kept))
        assert all(last == ("channels_last" in name) for name, last in turns)


class Clock:
    """Goes on only when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@dataclasses.dataclass
class FakeTimes:
    """What steps and evaluations take."""

    steps: Iterator[float]
    image: float = 0.0
    taken: int = 0


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> FakeTimes:
    clock = Clock()
    fake = FakeTimes(itertools.repeat(1.0))

    class FakeStep:
        def __init__(self, *_: Any) -> None:
            pass

        def __call__(self, batch: TrainBatch, lr: float) -> None:
            fake.taken += 1
            clock.now += next(fake.steps)

    def outputs(_: Any, images: ResidentImages, *__: Any) -> None:
        clock.now += fake.image * len(images)

    monkeypatch.setattr(probe, "Step", FakeStep)
    monkeypatch.setattr(probe, "outputs", outputs)
    monkeypatch.setattr(probe.time, "perf_counter", clock)
    return fake


class TestEpochSeconds:
    def data(self, noise: Callable[..., ImageDataset], n: int, n_val: int = 40) -> ResidentData:
        part = noise(n, n, height=6, width=6).part()
        train = ResidentImages.of(part, CPU)
        val = ResidentImages.of(noise(n_val // 2, n_val // 2, height=6, width=6).part(), CPU)
        return ResidentData(train, val, ("a", "b"), Preprocessing.of(part))

    @pytest.mark.parametrize("epoch_images", [32, 64, 640, 3200])
    def test_it_is_steps_by_their_time_and_the_validation(
        self, noise: Callable[..., ImageDataset], times: FakeTimes, epoch_images: int
    ) -> None:
        # The first step takes longer: libraries warm up; and one in between is disturbed.
        times.steps = itertools.chain([9.0, 0.5, 0.5, 7.0], itertools.repeat(0.5))
        times.image = 0.01
        data = self.data(noise, epoch_images // 2)
        found = epoch_seconds(conv_model(), data, CONFIG, CPU, at_most=100.0)
        each = 9.0 if epoch_images == 32 else 0.5
        assert found == pytest.approx(epoch_images / 32 * each + 40 * 0.01)

    def test_repetitions_count(self, noise: Callable[..., ImageDataset], times: FakeTimes) -> None:
        data = self.data(noise, 64)
        once, thrice = (
            epoch_seconds(conv_model(), data, dataclasses.replace(CONFIG, repeat=n), CPU)
            for n in (1, 3)
        )
        assert thrice == pytest.approx(3 * once)

    def test_it_takes_no_longer_than_it_may(
        self, noise: Callable[..., ImageDataset], times: FakeTimes
    ) -> None:
        data = self.data(noise, 1600)
        times.steps = itertools.repeat(0.1)
        assert epoch_seconds(conv_model(), data, CONFIG, CPU, at_most=1.05) == pytest.approx(10.0)
        assert times.taken == 11

    def test_long_steps_are_taken_three_times(
        self, noise: Callable[..., ImageDataset], times: FakeTimes
    ) -> None:
        times.steps = itertools.chain([60.0], itertools.repeat(5.0))
        found = epoch_seconds(conv_model(), self.data(noise, 1600), CONFIG, CPU)
        assert found == pytest.approx(100 * 5.0)
        assert times.taken == 3

    @pytest.mark.parametrize("micro_batch", [0, 10])
    def test_a_real_one(self, noise: Callable[..., ImageDataset], micro_batch: int) -> None:
        config = dataclasses.replace(CONFIG, ema=0.9, augment={"rotate": 5.0})
        config = dataclasses.replace(config, micro_batch=micro_batch)
        torch.manual_seed(3)
        state = torch.get_rng_state()
        one_step, many = (
            epoch_seconds(conv_model(), self.data(noise, n), config, CPU) for n in (16, 3200)
        )
        assert torch.equal(torch.get_rng_state(), state)
        assert 0 < one_step < many


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_probe_on_a_gpu(tuning: Tuning, monkeypatch: pytest.MonkeyPatch, optimizer: str) -> None:
    monkeypatch.setattr(probe, "PROBE_SECONDS", 0.2)
    monkeypatch.setattr(probe, "COMPILE_SECONDS", float("inf"))
    device = torch.device("cuda", torch.cuda.current_device())
    model = conv_model().to(device)
    before = copy.deepcopy(model.state_dict())
    state = torch.cuda.get_rng_state(device)
    config = dataclasses.replace(CONFIG, optimizer=OptimizerConfig(name=optimizer))
    choice = choose_setting(
        model, config, SHAPE, 3, device, steps=LONG, batch=config.batch_size, tuning=tuning
    )
    assert choice.source == "probe"
    graphed = [name for name in choice.images_per_second if name.endswith("graph")]
    assert len(graphed) == (4 if optimizer == "adamw" else 0)
    assert torch.equal(torch.cuda.get_rng_state(device), state)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
