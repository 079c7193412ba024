"""Trains networks that stand in for published weights where those cannot be fetched.

    .venv/bin/python scripts/make_stand_in_weights.py resnet18 --out runs/stand-ins

Trains torchvision's architecture from scratch on letters that are drawn here (`glyphs`), as a
search of one trial, and writes its weights to DIR/stand-in-resnet18-glyphs.pth: a state dict with
torchvision's names, as ImageNet's files are, but for the classes of the last layer. To use it:

    hpsearch search ... --set resnet.depth=18 --set resnet.weights=DIR/stand-in-resnet18-glyphs.pth

It shows that pretrained weights are read, frozen and trained further as they should be. It knows
letters, not photographs: no figure that is reached with it says what ImageNet's weights would
reach. It is never written where those would lie. Takes one to three minutes on two CPU cores.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import optuna
import torch
from torch import Tensor, nn
from torchvision import models

from hpsearch import DataSpec, HpsearchError, StagedModel, StudySpec, export, load, search


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """How much a stand-in learns: so many drawings of letters, of so many pixels, so often."""

    images: int = 2000
    letters: int = 10
    size: int = 64
    epochs: int = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """The family of a model of torchvision, its options there, and how it learns letters."""

    family: str
    options: dict[str, str | int | float] = dataclasses.field(default_factory=dict)
    training: Training = Training()


NETWORKS = {
    # Without BatchNorm, it stays where it is at higher rates.
    "alexnet": Network(family="alexnet", options={"lr": 3e-4}),
    "mobilenet_v2": Network(
        family="mobilenet", options={"version": "v2"}, training=Training(epochs=16)
    ),
    "resnet18": Network(family="resnet", options={"depth": 18}),
    "resnet34": Network(family="resnet", options={"depth": 34}, training=Training(epochs=4)),
    "resnet101": Network(
        family="resnet",
        options={"depth": 101},
        training=Training(images=1100, letters=4, epochs=5),
    ),
}


_OFF = ("hflip", "rotate", "resized_crop", "jitter", "label_smoothing", "dropout")


def stand_in_path(model: str, folder: Path) -> Path:
    """Where the stand-in for a model of torchvision lies: its name says what it is."""
    return folder / f"stand-in-{model}-glyphs.pth"


def make(model: str, folder: Path, *, training: Training | None = None) -> Path:
    """Trains the stand-in of `model` and gives its file; one that is there already stays.

    The search and the export that it comes from are beside it.
    """
    path = stand_in_path(model, folder)
    if path.is_file():
        return path
    network = NETWORKS[model]
    record = search(
        study(path.stem, network, training or network.training), runs=folder / "searches"
    )
    exported = export(record.best, folder / "exports" / path.stem, replace=True)
    predictor = load(exported.folder)
    state = torchvision_state(model, predictor.model, len(predictor.classes))
    unfinished = path.with_suffix(".part")
    torch.save(state, unfinished)
    unfinished.replace(path)
    return path


def study(name: str, network: Network, training: Training) -> StudySpec:
    """A search of one trial: what is known to work, from initial weights."""
    return StudySpec(
        name=name,
        data=DataSpec(
            source="glyphs",
            size=(training.size, training.size),
            options={"images": training.images, "letters": training.letters},
        ),
        families=(network.family,),
        trials=1,
        epochs=training.epochs,
        overrides={
            # The layers and the pixel values of the published weights, whatever the images' size.
            "weights": "none",
            "stem": "standard",
            "normalise": "imagenet",
            # In so few steps, the usual augmentations would leave it with nothing learnt.
            **dict.fromkeys(_OFF, 0.0),
            "init": "kaiming",
            "batch_size": 32,
            **network.options,
        },
        artifacts="none",
    )


def torchvision_state(model: str, trained: StagedModel, n_classes: int) -> dict[str, Tensor]:
    """The weights of `trained` by torchvision's names, as its own model with so many classes has
    them.
    """
    original = models.get_model(model, num_classes=n_classes)
    state = {trained.published.get(name, name): item for name, item in trained.state_dict().items()}
    (last,) = (name for name in state if name.startswith("stages.") and name.endswith(".weight"))
    own = [name for name, module in original.named_modules() if isinstance(module, nn.Linear)][-1]
    for kind in ("weight", "bias"):
        state[f"{own}.{kind}"] = state.pop(f"{last.removesuffix('.weight')}.{kind}")
    original.load_state_dict(state)
    return original.state_dict()


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Trains networks that stand in for published weights, on drawn letters."
    )
    parser.add_argument("models", nargs="+", choices=NETWORKS, metavar="MODEL", help=known())
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    for field in dataclasses.fields(Training):
        parser.add_argument(f"--{field.name}", type=int, metavar="N", help="instead of the usual")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    given = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(Training)}
    changes = {name: value for name, value in given.items() if value is not None}
    for model in arguments.models:
        training = dataclasses.replace(NETWORKS[model].training, **changes)
        try:
            print(make(model, arguments.out, training=training))
        except HpsearchError as error:
            parser.exit(2, f"error: {error}\n")


def known() -> str:
    return f"one or more of {', '.join(NETWORKS)}"


if __name__ == "__main__":
    main()
