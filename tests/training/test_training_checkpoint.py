from __future__ import annotations

import dataclasses
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hpsearch.config import DropoutConfig, EarlyStopping, OptimizerConfig, TrainConfig
from hpsearch.data.dataset import ImageShape
from hpsearch.data.preprocessing import Preprocessing
from hpsearch.data.resident import ResidentData
from hpsearch.errors import CheckpointError
from hpsearch.families import build_model
from hpsearch.training.checkpoint import (
    Checkpoint,
    library_versions,
    load_checkpoint,
    save_checkpoint,
)
from hpsearch.training.content import write_content
from hpsearch.training.evaluation import evaluate
from hpsearch.training.trainer import train

CONFIG = TrainConfig(
    family="cnn",
    options={"blocks": 1, "convs": 1, "channels": 2, "hidden": 0},
    optimizer=OptimizerConfig(name="sgd", lr=0.1 + 0.2, options={"momentum": 0.9}),
    dropout=DropoutConfig(schedule="late", rate=0.1),
    augment={"rotate": 1 / 3},
    early_stopping=EarlyStopping(patience=3),
    batch_size=32,
    epochs=1,
    seed=2**40,
)


def checkpoint(**changes: Any) -> Checkpoint:
    """An untrained model's, small enough to flip every bit of."""
    model = build_model(CONFIG, ImageShape(4, 4, 1), 2)
    values = {
        "state": model.state_dict(),
        "config": CONFIG,
        "classes": ("ant", "bée"),
        "preprocessing": Preprocessing(
            height=4, width=4, channels=1, mean=(0.1 + 0.2,), std=(1 / 3,)
        ),
        "metrics": {"val_accuracy": 2 / 3, "val_loss": 1e-300},
        "origin": {"search": "digits", "trial": "cnn-3", "number": 3},
    }
    return Checkpoint(**{**values, **changes})


def same(first: Checkpoint, second: Checkpoint) -> bool:
    plain = [f.name for f in dataclasses.fields(Checkpoint) if f.name != "state"]
    return (
        all(getattr(first, name) == getattr(second, name) for name in plain)
        and list(first.state) == list(second.state)
        and all(
            torch.equal(first.state[name], second.state[name])
            and first.state[name].dtype == second.state[name].dtype
            for name in first.state
        )
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "model.pt", checkpoint())
    return tmp_path / "model.pt"


def test_it_is_read_as_it_was_written(saved: Path) -> None:
    assert same(load_checkpoint(saved), checkpoint())
    assert load_checkpoint(saved).versions == library_versions()
    assert {"python", "torch", "numpy", "hpsearch"} <= set(library_versions())


def test_a_loaded_model_gives_the_same_outputs(tmp_path: Path, tiny_digits: ResidentData) -> None:
    preprocessing = tiny_digits.preprocessing
    model = build_model(CONFIG, preprocessing.shape, 10)
    for _ in train(model, tiny_digits, CONFIG, device=torch.device("cpu")):
        pass
    original = checkpoint(
        state=model.state_dict(), preprocessing=preprocessing, classes=tiny_digits.classes
    )
    save_checkpoint(tmp_path / "model.pt", original)
    read = load_checkpoint(tmp_path / "model.pt")
    rebuilt = build_model(read.config, read.preprocessing.shape, len(read.classes))
    rebuilt.load_state_dict(dict(read.state))
    outputs = [
        evaluate(m, tiny_digits.val, p, "fp32", "channels_last").logits
        for m, p in ((model, preprocessing), (rebuilt, read.preprocessing))
    ]
    assert torch.equal(*outputs)


def test_the_hash_is_that_of_the_content(tmp_path: Path) -> None:
    def digest(**changes: Any) -> str:
        return save_checkpoint(tmp_path / "any.pt", checkpoint(**changes))

    original = digest()
    assert digest() == original
    state = checkpoint().state
    turned = {**state, "stages.head.2.weight": state["stages.head.2.weight"].flip(0)}
    reshaped = {**state, "stages.head.2.weight": state["stages.head.2.weight"].reshape(-1, 2)}
    bf16 = {**state, "stages.head.2.bias": state["stages.head.2.bias"].bfloat16()}
    others = [
        {"state": turned},
        {"state": reshaped},
        {"state": bf16},
        {"classes": ("bée", "ant")},
        {"config": dataclasses.replace(CONFIG, seed=1)},
        {"metrics": {"val_accuracy": 0.6, "val_loss": 1e-300}},
        {"origin": {}},
    ]
    hashes = {digest(**changes) for changes in others}
    assert len(hashes | {original}) == len(others) + 1
    assert all(len(text) == 64 for text in hashes)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(3),
        torch.tensor(True),
        torch.zeros(0, 3),
        torch.tensor([float("nan"), float("inf"), -0.0]),
        torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.rand(4, 6)[:, ::2].T,
        torch.rand(3).to(torch.bfloat16),
        torch.rand(3, requires_grad=True),
    ],
    ids=["int", "bool", "empty", "special", "channels last", "strided", "bf16", "with gradient"],
)
def test_any_tensor_is_kept(tmp_path: Path, tensor: torch.Tensor) -> None:
    save_checkpoint(tmp_path / "model.pt", checkpoint(state={"tensor": tensor}))
    read = load_checkpoint(tmp_path / "model.pt").state["tensor"]
    assert read.dtype == tensor.dtype
    assert not read.requires_grad
    assert torch.equal(read.nan_to_num(nan=7.0), tensor.detach().nan_to_num(nan=7.0))


def test_files_of_the_first_version_are_read(tmp_path: Path) -> None:
    document = {
        "format": "hpsearch-checkpoint-1",
        "config": {"family": "logistic", "seed": 7},
        "classes": ["ant", "bée"],
        "preprocessing": {"height": 1, "width": 2, "channels": 1, "mean": [0.5], "std": [0.25]},
        "metrics": {"epoch": 3, "val_accuracy": 0.5},
        "origin": {"trial": "logistic-3"},
        "versions": {"torch": "2.11.0"},
    }
    state = {
        "weight": torch.tensor([[1.0, -2.0], [0.5, 0.25]]),
        "bias": torch.tensor([1, 2]).to(torch.bfloat16),
        "count": torch.tensor(3),
    }
    # As that version computed it.
    sha256 = "eb23ecb7a3b029fdcd64fce2e746ca1112dd913a4226a986c936ab690c95a9ec"
    content = {"document": json.dumps(document), "state": state, "sha256": sha256}
    torch.save(content, tmp_path / "model.pt")
    read = load_checkpoint(tmp_path / "model.pt")
    assert read.config == TrainConfig(family="logistic", seed=7)
    assert (read.classes, dict(read.metrics)) == (("ant", "bée"), document["metrics"])
    assert write_content(tmp_path / "same.pt", document, read.state) == sha256


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_a_truncated_file_is_refused(saved: Path) -> None:
    whole = saved.read_bytes()
    for length in (*range(0, len(whole), 97), len(whole) - 22, len(whole) - 1):
        saved.write_bytes(whole[:length])
        refusal(saved)


def escapes(path: Path, original: Checkpoint, damages: dict[str, bytes]) -> tuple[list[str], int]:
    """What came of damages other than an error or the original content; number of errors."""
    escaped, refused = [], 0
    for damage, content in damages.items():
        path.write_bytes(content)
        try:
            if not same(load_checkpoint(path), original):
                escaped.append(f"{damage}: read as something else")
        except CheckpointError as error:
            refused += str(path) in str(error)
        except Exception as error:
            escaped.append(f"{damage}: {type(error).__name__}: {error}")
    return escaped, refused


def flipped(whole: bytes, bits: list[int]) -> dict[str, bytes]:
    damages = {}
    for bit in bits:
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        damages[f"bit {bit}"] = bytes(content)
    return damages


def test_a_flipped_bit_is_found_or_does_no_harm(saved: Path) -> None:
    whole = saved.read_bytes()
    bits = np.random.default_rng(0).choice(8 * len(whole), 600, replace=False)
    escaped, refused = escapes(saved, checkpoint(), flipped(whole, bits.tolist()))
    assert not escaped
    assert refused > 200


def test_a_flipped_bit_in_what_is_stored_is_found(saved: Path) -> None:
    # The places that matter most: the pickle and the tensors themselves.
    whole = saved.read_bytes()
    bits: list[int] = []
    with zipfile.ZipFile(saved) as archive:
        for entry in archive.infolist():
            if "data" in entry.filename:
                start = whole.index(archive.read(entry.filename))
                bits += range(8 * start, 8 * (start + entry.file_size))
    bits = np.random.default_rng(0).choice(bits, 600, replace=False).tolist()
    escaped, refused = escapes(saved, checkpoint(), flipped(whole, bits))
    assert not escaped
    assert refused > 0.9 * len(bits)


def test_zeroed_blocks_are_found_or_do_no_harm(saved: Path) -> None:
    whole = saved.read_bytes()
    damages = {
        f"zeroes at {start}": whole[:start] + bytes(64) + whole[start + 64 :]
        for start in range(0, len(whole) - 64, 61)
    }
    escaped, refused = escapes(saved, checkpoint(), damages)
    assert not escaped
    assert refused > 20


def rewritten(path: Path, **changes: Any) -> None:
    """Writes the file at `path` again, properly, but with other content under the same hash."""
    content = torch.load(path, weights_only=True)
    torch.save({**content, **changes}, path)


def test_changed_content_does_not_pass_under_the_old_hash(saved: Path) -> None:
    content = torch.load(saved, weights_only=True)
    state = dict(content["state"])
    state["stages.head.2.bias"] = state["stages.head.2.bias"] + 1e-7
    rewritten(saved, state=state)
    assert "SHA-256" in refusal(saved)
    save_checkpoint(saved, checkpoint())
    document = content["document"].replace('"val_accuracy": 0.66', '"val_accuracy": 0.99')
    assert document != content["document"]
    rewritten(saved, document=document)
    assert "SHA-256" in refusal(saved)


def test_another_format_is_named(saved: Path) -> None:
    document = torch.load(saved, weights_only=True)["document"]
    rewritten(saved, document=document.replace("hpsearch-checkpoint-1", "hpsearch-checkpoint-9"))
    assert "hpsearch-checkpoint-9" in refusal(saved)


@pytest.mark.parametrize("change", [{"config": {"family": "cnn", "speed": 1}}, {"classes": None}])
def test_a_whole_file_of_another_version_is_named(saved: Path, change: dict[str, Any]) -> None:
    content = torch.load(saved, weights_only=True)
    write_content(saved, {**json.loads(content["document"]), **change}, content["state"])
    assert "does not know such a checkpoint" in refusal(saved)


@pytest.mark.parametrize(
    "content",
    [
        {},
        [],
        3,
        {"state": {}, "sha256": ""},
        {"document": "{}", "state": {}, "sha256": ""},
        {"document": "[]", "state": {}, "sha256": ""},
        {"document": "no json", "state": {}, "sha256": ""},
        {"document": '{"format": "hpsearch-checkpoint-1"}', "state": None, "sha256": ""},
        {"document": '{"format": "hpsearch-checkpoint-1"}', "state": {"a": 1}, "sha256": ""},
        {"document": '{"format": "hpsearch-checkpoint-1"}', "state": {1: 1, "a": 2}, "sha256": ""},
        {"document": '{"format": "hpsearch-checkpoint-1"}', "state": {}, "sha256": None},
    ],
)
def test_a_file_of_torch_that_is_no_checkpoint_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "other.pt")
    refusal(tmp_path / "other.pt")


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"weights", bytes(1000), pickle.dumps({"document": "{}"})]
)
def test_what_is_no_file_of_torch_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "other.pt").write_bytes(content)
    refusal(tmp_path / "other.pt")


@pytest.mark.parametrize("name", ["missing.pt", "."])
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    assert "no checkpoint" in refusal(tmp_path / name)


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("place", ["document", "state", "sha256", "all"])
def test_code_in_a_checkpoint_is_never_run(saved: Path, place: str, zipped: bool) -> None:
    sprung = saved.parent / "sprung"
    trap = Trap(sprung)
    content = {**torch.load(saved, weights_only=True), place: trap}
    torch.save(trap if place == "all" else content, saved, _use_new_zipfile_serialization=zipped)
    refusal(saved)
    assert not sprung.exists()
    # The trap is a real one.
    torch.load(saved, weights_only=False)
    assert sprung.exists()


def test_a_bare_pickle_is_never_run(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    refusal(path)
    assert not recwarn.list  # the error says it all
    assert not (tmp_path / "sprung").exists()


def test_an_error_while_writing_leaves_the_old_file(saved: Path) -> None:
    bad = checkpoint(metrics={"val_accuracy": object()})
    with pytest.raises(TypeError):
        save_checkpoint(saved, bad)
    assert same(load_checkpoint(saved), checkpoint())
    assert [path.name for path in saved.parent.iterdir()] == ["model.pt"]
