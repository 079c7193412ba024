"""Models as programs do elsewhere what they do here."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from handmade import COLOURS, colour_checkpoint, plain
from torch import nn

from hpsearch.config import InputConfig, TrainConfig
from hpsearch.data.dataset import ImageDataset, UInt8Array
from hpsearch.data.preprocessing import Preprocessing
from hpsearch.errors import CheckpointError
from hpsearch.families import build_model, family_names
from hpsearch.results import portable
from hpsearch.results.inference import restore_model, run_model
from hpsearch.results.portable import write_onnx, write_program
from hpsearch.training.checkpoint import Checkpoint
from hpsearch.training.model import StagedModel

COUNTS = (1, 2, 7)
SMALL = InputConfig(size=(12, 10), resize=(14, 13), channels=3, normalise="imagenet")
LARGE = InputConfig(size=(64, 64), resize=(70, 66), channels=3, normalise="half")
MODELS: dict[str, tuple[str, dict[str, Any], InputConfig]] = {
    **{
        name: (name, {}, SMALL if name in ("logistic", "mlp", "cnn") else LARGE)
        for name in family_names()
    },
    "gray": ("cnn", {}, InputConfig()),
    "vit": ("torchvision", {"model": "vit_b_32"}, LARGE),
}
ONNX = ("logistic", "mlp", "cnn", "gray", "mobilenet", "resnet")

# What runs where there is torch and nothing of ours.
ALONE = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("hpsearch", "torchvision", "PIL", "optuna"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
import json
from pathlib import Path
import numpy as np
import torch

torch.set_num_threads(1)
folder = Path(sys.argv[1])
images = np.load(folder / "images.npy")
found = {}
for path in sorted(folder.glob("*.pt2")):
    extra = {"classes.json": "", "config.json": ""}
    program = torch.export.load(path, extra_files=extra).module()
    assert json.loads(extra["classes.json"]) == ["a", "b", "ü"]
    assert json.loads(extra["config.json"])["family"]
    for count in map(int, sys.argv[2:]):
        found[f"{path.stem} {count}"] = program(torch.from_numpy(images[:count])).numpy()
assert "hpsearch" not in sys.modules
np.savez(folder / "found.npz", **found)
"""


def noise(n: int = 7) -> ImageDataset:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (n, 20, 17, 1), dtype=np.uint8)
    return ImageDataset("noise", images, np.arange(n) % 3, ("a", "b", "ü"))


def learn_statistics(model: StagedModel, preprocessing: Preprocessing) -> None:
    """As training would: without them a deep network of random weights gives the same for all."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # those of the one batch, all of them
    shape = preprocessing.shape
    with torch.no_grad():
        model.train()(torch.randn(7, shape.channels, shape.height, shape.width))


def random_checkpoint(model: str) -> Checkpoint:
    family, options, prepared = MODELS[model]
    # Half precision in training must not matter.
    config = TrainConfig(family=family, options=options, input=prepared, precision="bf16", seed=3)
    preprocessing = Preprocessing.of(noise().part(), prepared)
    built = build_model(config, preprocessing.shape, 3)
    learn_statistics(built, preprocessing)
    return Checkpoint(
        state=built.state_dict(),
        config=config,
        classes=noise().classes,
        preprocessing=preprocessing,
        metrics={},
        origin={},
    )


def expected(checkpoint: Checkpoint, images: UInt8Array) -> np.ndarray:
    """Logarithms of the probabilities, as the model here gives them in fp32."""
    data = ImageDataset("noise", images, np.zeros(len(images), dtype=np.int64), checkpoint.classes)
    exact = TrainConfig.from_dict({**checkpoint.config.to_dict(), "precision": "fp32"})
    model = restore_model(checkpoint)
    same = Checkpoint(**{**vars(checkpoint), "config": exact})
    logits = run_model(model, same, data.part(), torch.device("cpu")).logits
    return logits.double().log_softmax(dim=1).numpy()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Checkpoint], Any]:
    """Programs of all models, and what they give in a Python that lacks hpsearch."""
    folder = tmp_path_factory.mktemp("programs")
    np.save(folder / "images.npy", noise().images)
    checkpoints = {model: random_checkpoint(model) for model in MODELS}
    for model, checkpoint in checkpoints.items():
        write_program(folder / f"{model}.pt2", checkpoint, sample=noise().images)
    command = [sys.executable, "-c", ALONE, str(folder), *map(str, COUNTS)]
    subprocess.run(command, check=True, timeout=300, cwd=folder, env={**os.environ})
    with np.load(folder / "found.npz") as found:
        return checkpoints, dict(found)


@pytest.mark.parametrize("model", MODELS)
def test_a_program_does_the_same_with_torch_alone(
    alone: tuple[dict[str, Checkpoint], Any], model: str
) -> None:
    checkpoints, found = alone
    logarithms = expected(checkpoints[model], noise().images)
    assert np.ptp(logarithms, axis=0).max() > 1e-4  # it looks at the images
    for count in COUNTS:
        probabilities = found[f"{model} {count}"]
        assert probabilities.dtype == np.float32
        np.testing.assert_allclose(np.log(probabilities), logarithms[:count], atol=1e-4)


@pytest.mark.parametrize("model", ONNX)
def test_an_onnx_file_does_the_same(
    model: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import onnx
    import onnxruntime

    if model == "gray" and tuple(map(int, torch.__version__.split(".")[:2])) < (2, 12):
        pytest.skip("this version of torch cannot export adaptive max pooling to ONNX")
    checkpoint = random_checkpoint(model)
    path = tmp_path / "model.onnx"
    write_onnx(path, checkpoint, sample=noise().images)
    assert capfd.readouterr() == ("", "")  # the exporters are chatty, the library is not
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]  # the weights are inside
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (given,), (result,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("images", "tensor(uint8)", ["n", 20, 17, 1])
    assert (result.name, result.shape) == ("probabilities", ["n", 3])
    logarithms = expected(checkpoint, noise().images)
    for count in COUNTS:
        (found,) = session.run(None, {"images": noise().images[:count]})
        np.testing.assert_allclose(np.log(found), logarithms[:count], atol=1e-4)
    stored = {row.key: json.loads(row.value) for row in onnx.load(path).metadata_props}
    assert stored["classes"] == ["a", "b", "ü"]
    assert stored["config"]["family"] == checkpoint.config.family


def test_a_program_says_what_the_model_says(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """By hand: images of one colour, from a sample of one image."""
    path = tmp_path / "model.pt2"
    write_program(path, colour_checkpoint(precision="bf16"), sample=plain("red")[np.newaxis])
    assert capfd.readouterr() == ("", "")
    images = torch.from_numpy(np.stack([plain(colour) for colour in COLOURS]))
    probabilities = torch.export.load(path).module()(images)
    odds = np.exp(8 * (220 - 20) / 255)
    np.testing.assert_allclose(probabilities.diag().numpy(), odds / (odds + 2), rtol=1e-5)


OWN_FAMILY = """
import torch
from torch import nn

from hpsearch import Family, StagedModel, ask_start, suggest_training


class Odd(nn.Module):
    def __init__(self, features, n_classes):
        super().__init__()
        self.linear = nn.Linear(features, n_classes)

    def forward(self, images):
        FORWARD


def suggest(s, shape):
    return suggest_training(s, ask_start(s, shape), options={})


def build(options, shape, n_classes):
    return StagedModel({"head": Odd(shape.height * shape.width * shape.channels, n_classes)})


FAMILY = Family(summary="odd", suggest=suggest, build=build, defaults=({"lr": 0.01},))
"""
DEPENDS_ON_DATA = "return self.linear(images.flatten(1)) * (1 if images.sum().item() > 0 else 2)"
FIXED_NUMBER = "return self.linear(images.reshape(len(images), -1))"
DIFFERENT = """x = self.linear(images.flatten(1))
        return -x if torch.compiler.is_exporting() else x"""


@pytest.mark.parametrize("write", [write_program, write_onnx])
@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (DEPENDS_ON_DATA, "cannot take models of the family"),
        (FIXED_NUMBER, r"makes the number of images a fixed one.*images\.shape\[0\]"),
        (DIFFERENT, "does not do what the model does.*differ by up to 0"),
    ],
    ids=["depends-on-data", "fixed-number", "different"],
)
def test_a_model_that_cannot_be_exported_is_refused(
    write: Any, forward: str, message: str, tmp_path: Path
) -> None:
    family = tmp_path / "odd.py"
    family.write_text(OWN_FAMILY.replace("FORWARD", forward))
    config = TrainConfig(family=str(family))
    preprocessing = Preprocessing.of(noise().part())
    checkpoint = Checkpoint(
        state=build_model(config, preprocessing.shape, 3).state_dict(),
        config=config,
        classes=("a", "b", "c"),
        preprocessing=preprocessing,
        metrics={},
        origin={},
    )
    (tmp_path / "out").mkdir()
    with pytest.raises(CheckpointError, match=message) as caught:
        write(tmp_path / "out" / "model", checkpoint, sample=noise().images)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_another_class_is_refused_in_words_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = np.array([[0.5002, 0.4998]])
    monkeypatch.setattr(portable, "_by_model", lambda *_: expected)
    with pytest.raises(
        CheckpointError, match=r"another class, .* less probable by 0\.0004, of which 1e-05"
    ):
        portable._check(
            "ONNX", lambda _: expected[:, ::-1], colour_checkpoint(), plain("red")[np.newaxis]
        )


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else find(name)
    )
    with pytest.raises(CheckpointError, match=rf"{package}, .* pip install 'hpsearch\[onnx\]'"):
        write_onnx(tmp_path / "m.onnx", colour_checkpoint(), sample=plain("red")[np.newaxis])
