from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hpsearch.config import DropoutConfig, OptimizerConfig, ScheduleConfig, TrainConfig
from hpsearch.data.dataset import ImageShape
from hpsearch.data.store import cache_folder
from hpsearch.training import tuning as tuning_module
from hpsearch.training.model import StagedModel
from hpsearch.training.tuning import FILE, Tuning, device_name, device_words, model_key, tuning_key

CPU = torch.device("cpu")
CONFIG = TrainConfig(family="own", batch_size=32)
SHAPE = ImageShape(8, 8, 1)
ROW = {"fp32 channels_last": 1234.5, "bf16 NCHW": 1e-3}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sub" / "tuning.json"


class TestFile:
    def test_what_is_put_is_there_for_others(self, path: Path) -> None:
        Tuning(path).put("one", ROW)
        Tuning(path).put("two", {"a": 2.0})
        assert Tuning(path).get("one") == ROW
        assert Tuning(path).get("two") == {"a": 2.0}
        assert Tuning(path).get("three") is None
        Tuning(path).put("one", {"b": 3.0})  # all go by what the first process measured
        assert Tuning(path).get("one") == ROW
        Tuning(path).put("one", {"b": 3.0}, replace=True)
        assert Tuning(path).get("one") == {"b": 3.0}

    def test_by_default_it_is_in_the_users_cache(self) -> None:
        Tuning().put("of a test", {"a": 1.0})
        assert Tuning(cache_folder() / FILE).get("of a test") == {"a": 1.0}

    def test_nothing_is_there_at_first(self, path: Path) -> None:
        assert Tuning(path).get("one") is None
        assert not path.parent.exists()  # to ask writes nothing

    @pytest.mark.parametrize(
        "content",
        [b"", b"{", b'{"one": {"a": 1.0}', b"[1]", b"null", b"\xff\xfe\x00", b'"text"'],
        ids=repr,
    )
    def test_a_damaged_file_is_an_empty_one(self, path: Path, content: bytes) -> None:
        path.parent.mkdir()
        path.write_bytes(content)
        tuning = Tuning(path)
        assert tuning.get("one") is None
        tuning.put("two", ROW)
        assert tuning.get("two") == ROW

    @pytest.mark.parametrize("row", [None, 1.0, "text", [1.0], {"a": "b"}, {"a": None}], ids=repr)
    def test_a_damaged_row_is_none_and_the_others_stay(self, path: Path, row: Any) -> None:
        Tuning(path).put("other", ROW)
        rows = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**rows, "one": row}), encoding="utf-8")
        assert Tuning(path).get("one") is None
        Tuning(path).put("one", {"a": 1.0})
        assert Tuning(path).get("one") == {"a": 1.0}
        assert Tuning(path).get("other") == ROW

    def test_where_it_cannot_be_written_nothing_happens(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("mine")
        for path in (tmp_path / "file" / "tuning.json", tmp_path / "file" / "a" / "tuning.json"):
            tuning = Tuning(path)
            tuning.put("one", ROW)
            assert tuning.get("one") is None
        (tmp_path / "folder" / "tuning.json").mkdir(parents=True)
        tuning = Tuning(tmp_path / "folder" / "tuning.json")
        tuning.put("one", ROW)
        assert tuning.get("one") is None
        assert (tmp_path / "file").read_text() == "mine"

    def test_the_oldest_rows_go(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tuning_module, "MOST_ROWS", 5)
        tuning = Tuning(path)
        for number in range(8):
            tuning.put(str(number), {"a": float(number)})
        assert [key for key in map(str, range(8)) if tuning.get(key)] == ["3", "4", "5", "6", "7"]
        assert len(json.loads(path.read_text(encoding="utf-8"))) == 5

    def test_processes_that_write_at_once_lose_nothing(self, path: Path) -> None:
        code = (
            "import sys; from pathlib import Path; from hpsearch.training.tuning import Tuning\n"
            "tuning = Tuning(Path(sys.argv[1]))\n"
            "print('ready', flush=True); sys.stdin.readline()\n"
            "for n in range(40): tuning.put(f'{sys.argv[2]}-{n}', {'a': float(n)})\n"
        )
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", code, str(path), name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for name in "ab"
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            process.communicate(timeout=60)
            assert process.returncode == 0
        tuning = Tuning(path)
        for name in "ab":
            assert [tuning.get(f"{name}-{n}") for n in range(40)] == [
                {"a": float(n)} for n in range(40)
            ]
        assert {found.name for found in path.parent.iterdir()} <= {
            "tuning.json",
            "tuning.json.lock",
        }


def model(width: int = 4, *, dropout: float = 0.0) -> StagedModel:
    stem = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Dropout(dropout))
    return StagedModel({"stem": stem, "head": nn.Linear(width, 2)})


def key(
    config: TrainConfig = CONFIG,
    *,
    what: str = "step",
    of: StagedModel | None = None,
    shape: ImageShape = SHAPE,
    also: str = "",
) -> str:
    return tuning_key(what, of or model(), config, shape, CPU, also=also)


def changed(**changes: Any) -> TrainConfig:
    return dataclasses.replace(CONFIG, **changes)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    yield
    torch.set_num_threads(before)


class TestKeys:
    def test_the_same_question_has_the_same_key(self) -> None:
        # Weights, and what does not change how long a step takes, do not matter.
        for config in (
            CONFIG,
            changed(seed=9),
            changed(epochs=99),
            changed(label_smoothing=0.1),
            changed(schedule=ScheduleConfig(name="linear")),
            changed(dropout=DropoutConfig(rate=0.3)),
            changed(optimizer=OptimizerConfig(lr=0.5)),
            changed(precision="bf16"),
        ):
            assert key(config) == key()

    @pytest.mark.parametrize(
        "other",
        [
            lambda: key(changed(batch_size=33)),
            lambda: key(changed(micro_batch=8)),
            lambda: key(changed(ema=0.9)),
            lambda: key(changed(grad_clip=1.0)),
            lambda: key(changed(optimizer=OptimizerConfig(name="muon"))),
            lambda: key(changed(family="other")),
            lambda: key(of=model(5)),
            lambda: key(of=model().freeze(1)),
            lambda: key(of=model(dropout=0.5)),
            lambda: key(shape=ImageShape(8, 9, 1)),
            lambda: key(shape=ImageShape(8, 8, 3)),
            lambda: key(what="settings"),
            lambda: key(also="bf16"),
        ],
    )
    def test_another_question_has_another(self, other: Callable[[], str]) -> None:
        assert other() != key()
        assert other() == other()

    def test_threads_matter(self, request: pytest.FixtureRequest) -> None:
        before = key()
        request.getfixturevalue("two_threads")
        assert key() != before

    def test_the_version_of_torch_matters(self, monkeypatch: pytest.MonkeyPatch) -> None:
        before = key()
        monkeypatch.setattr(torch, "__version__", "99.0")
        assert key() != before

    def test_the_processor_matters(self, monkeypatch: pytest.MonkeyPatch) -> None:
        before = key()
        monkeypatch.setattr(tuning_module, "_cpu_model", lambda: "another processor")
        assert key() != before
        assert device_name(CPU).startswith("another processor")

    def test_it_says_what_it_is_for(self) -> None:
        assert key().startswith("step: own at ")
        assert "batch 32" in key()

    def test_a_models_key_knows_what_is_trained_by_what(self) -> None:
        def of(config: TrainConfig = CONFIG, *, frozen: int = 0, width: int = 4) -> str:
            return model_key(model(width).freeze(frozen), config, SHAPE)

        assert of() == of(changed(batch_size=5, seed=3))
        others = {
            of(frozen=1),
            of(width=5),
            of(changed(optimizer=OptimizerConfig(name="sgd"))),
            model_key(model(), CONFIG, ImageShape(8, 8, 3)),
        }
        assert len({of(), *others}) == 5


def test_a_processor_has_a_name_on_every_system(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(*_: Any, **__: Any) -> str:
        raise FileNotFoundError

    assert device_name(CPU)
    monkeypatch.setattr(Path, "read_text", unreadable)
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert device_name(CPU).startswith("arm64, ")


def test_a_device_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    for threads, words in ((1, "cpu (1 thread)"), (3, "cpu (3 threads)")):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert device_words(CPU) == words
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H100 80GB HBM3")
    assert device_words(torch.device("cuda:1")) == "cuda:1, NVIDIA H100 80GB HBM3"
