"""What a model made of the validation images: all of it comes back, or the file is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from test_training_trainer import CPU, SMALL_MLP, built, changed

from hpsearch.data.resident import ResidentData
from hpsearch.errors import CheckpointError, NonFiniteLossError
from hpsearch.training.evaluation import evaluate
from hpsearch.training.trainer import Training
from hpsearch.training.validation import Validation, read_validation, write_validation

LOGITS = torch.tensor([[0.0, 2.0, 1.0], [3.0, -1.0, 0.0]])


def test_what_was_written_is_read(tmp_path: Path) -> None:
    written = Validation.of(7, LOGITS)
    assert written.predicted.tolist() == [1, 0]
    assert written.confidence == pytest.approx([0.6652, 0.9362], abs=1e-4)
    write_validation(tmp_path / "validation.npz", written)
    read = read_validation(tmp_path / "validation.npz")
    assert read.epoch == 7
    assert read.predicted.dtype == np.int64
    assert np.array_equal(read.predicted, written.predicted)
    assert np.array_equal(read.confidence, written.confidence)
    assert [path.name for path in tmp_path.iterdir()] == ["validation.npz"]


def damaged(path: Path, damage: str) -> None:
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(whole[:-40])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_text("not an archive", encoding="utf-8")
    elif damage == "one array":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif damage == "lacks one":
        np.savez(path, epoch=np.int64(1), predicted=np.zeros(3))
    elif damage == "lengths":
        np.savez(path, epoch=np.int64(1), predicted=np.zeros(3), confidence=np.zeros(2))
    else:
        np.savez(path, epoch=np.int64(1), predicted=[{"a": 1}], confidence=[{"a": 1}])


@pytest.mark.parametrize(
    "damage",
    ["missing", "cut", "empty", "text", "one array", "lacks one", "lengths", "pickled objects"],
)
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "validation.npz"
    write_validation(path, Validation.of(7, LOGITS))
    damaged(path, damage)
    with pytest.raises(CheckpointError, match="validation images cannot be read") as caught:
        read_validation(path)
    assert "\n" not in str(caught.value)


class TestTheTrainersOutputs:
    @pytest.mark.parametrize("ema", [0.0, 0.7])
    def test_they_are_those_of_the_weights_that_the_epoch_left(
        self, tiny_digits: ResidentData, ema: float
    ) -> None:
        config = changed(SMALL_MLP, epochs=3, ema=ema)
        model = built(config, tiny_digits)
        training = Training(model, tiny_digits, config, device=CPU)
        for result in training.run():
            again = evaluate(
                model,
                tiny_digits.val,
                tiny_digits.preprocessing,
                config.precision,
                config.memory_format,
            )
            assert torch.equal(training.val_logits, again.logits)
            made = Validation.of(result.epoch, training.val_logits)
            right = made.predicted == tiny_digits.val.labels.numpy()
            assert right.mean() == pytest.approx(result.val_accuracy)

    def test_before_the_first_epoch_there_are_none(self, tiny_digits: ResidentData) -> None:
        training = Training(built(SMALL_MLP, tiny_digits), tiny_digits, SMALL_MLP, device=CPU)
        with pytest.raises(RuntimeError, match="no epoch"):
            _ = training.val_logits

    def test_an_epoch_has_its_memory(
        self, tiny_digits: ResidentData, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """While it trains, those of the epoch before are gone, and after a failure, too."""
        config = changed(SMALL_MLP, epochs=3)
        training = Training(built(config, tiny_digits), tiny_digits, config, device=CPU)
        epochs = training.run()
        next(epochs)

        def fails() -> None:
            assert training._val_logits is None
            raise NonFiniteLossError("none")

        monkeypatch.setattr(training, "_validate", fails)
        with pytest.raises(NonFiniteLossError):
            next(epochs)
