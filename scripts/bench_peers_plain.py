"""Peers of `bench_peers.py`: a search as one writes it with Optuna, torch and torchvision.

    .venv/bin/python scripts/bench_peers_plain.py JOB.json

`bench_peers.py` writes the job and starts this. Three ways to feed the network:

- folder: ImageFolder, transforms of torchvision image by image on what Pillow opened (on small
  images that is faster than on tensors), a DataLoader with two workers.
- memory: all images decoded once into a TensorDataset; a DataLoader without workers, whose collate
  function transforms each image on its own: the same augmentation as in the arm "folder".
- batch: as memory, but one call of the transforms for each batch, so that all of its images are
  turned by the same angle. It costs less, and is a weaker augmentation.

In "memory" and "batch", scaling and normalising are done once for a batch. No arm writes a
checkpoint, reads a loss or stores its trials.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.models import resnet18
from torchvision.transforms import InterpolationMode, v2

WIDTHS = (32, 64, 128)
HFLIP, DEGREES, JITTER = 0.5, 15.0, 0.2
LR, WEIGHT_DECAY = (1e-3, 4e-3), (1e-4, 1e-2)
EVAL_BATCH = 512
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Config = Mapping[str, Any]
Loaders = tuple[DataLoader, DataLoader]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What one process does.

    Attributes:
        arm: "folder", "memory", "batch" or "lightning".
        network: "cnn" or "resnet18".
        data: folder with train/ and val/, in each a folder of pictures for each class.
        seed: of all trainings.
        configs: of each trial "lr", "weight_decay" and "augment" (true or false).
        result: path of the JSON file for the trials' outcomes.
    """

    arm: str
    network: str
    data: str
    classes: int
    epochs: int
    batch: int
    seed: int
    configs: Sequence[Config]
    result: str


def read_job(path: str) -> Job:
    return Job(**json.loads(Path(path).read_text(encoding="utf-8")))


def make_network(name: str, classes: int) -> nn.Module:
    """The CNN in the order that everybody writes, or torchvision's ResNet18, untrained."""
    if name == "resnet18":
        return resnet18(num_classes=classes)
    blocks = []
    for inputs, outputs in zip((3, *WIDTHS[:-1]), WIDTHS, strict=True):
        blocks += [
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTHS[-1], classes)]
    return nn.Sequential(*blocks, *head)


def augmentations() -> list[nn.Module]:
    """Flip, rotation (bilinear, as hpsearch's) and colour jitter."""
    return [
        v2.RandomHorizontalFlip(HFLIP),
        v2.RandomRotation(DEGREES, interpolation=InterpolationMode.BILINEAR),
        v2.ColorJitter(brightness=JITTER, contrast=JITTER, saturation=JITTER),
    ]


def to_input() -> list[nn.Module]:
    return [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]


def folder_loaders(job: Job, *, augment: bool) -> Loaders:
    plain = [v2.ToImage(), *to_input()]
    transforms = [*augmentations(), *plain] if augment else plain
    train = ImageFolder(Path(job.data) / "train", v2.Compose(transforms))
    val = ImageFolder(Path(job.data) / "val", v2.Compose(plain))
    workers = {"num_workers": 2, "persistent_workers": True}
    return (
        DataLoader(train, batch_size=job.batch, shuffle=True, **workers),
        DataLoader(val, batch_size=EVAL_BATCH, **workers),
    )


def decoded(folder: Path) -> TensorDataset:
    """All pictures of a folder: uint8 (n, 3, height, width), and labels int64 (n,)."""
    pictures = ImageFolder(folder, v2.PILToTensor())
    images, labels = zip(*DataLoader(pictures, batch_size=256, num_workers=2), strict=True)
    return TensorDataset(torch.cat(images), torch.cat(labels))


def collate(
    augment: nn.Module | None,
    finish: nn.Module,
    each: bool,
    samples: Sequence[tuple[Tensor, Tensor]],
) -> tuple[Tensor, Tensor]:
    images, labels = zip(*samples, strict=True)
    if augment is not None and each:
        images = [augment(image) for image in images]
    batch = torch.stack(images)
    if augment is not None and not each:
        batch = augment(batch)
    return finish(batch), torch.stack(labels)


def memory_loaders(
    job: Job, parts: tuple[TensorDataset, TensorDataset], *, augment: bool
) -> Loaders:
    chosen = v2.Compose(augmentations()) if augment else None
    finish, each = v2.Compose(to_input()), job.arm == "memory"
    shown = functools.partial(collate, chosen, finish, each)
    plain = functools.partial(collate, None, finish, each)
    return (
        DataLoader(parts[0], batch_size=job.batch, shuffle=True, collate_fn=shown),
        DataLoader(parts[1], batch_size=EVAL_BATCH, collate_fn=plain),
    )


def train(network: nn.Module, loaders: Loaders, config: Config, epochs: int) -> float:
    """Trains; returns the validation accuracy of the best epoch."""
    train_loader, val_loader = loaders
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=config["lr"], weight_decay=config["weight_decay"]
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(train_loader))
    best = 0.0
    for _ in range(epochs):
        network.train()
        for images, labels in train_loader:
            loss = F.cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        best = max(best, accuracy(network, val_loader))
    return best


@torch.inference_mode()
def accuracy(network: nn.Module, loader: DataLoader) -> float:
    network.eval()
    right = sum((network(images).argmax(1) == labels).sum().item() for images, labels in loader)
    return right / len(loader.dataset)


def run_study(job: Job, score: Callable[[nn.Module, Config], float]) -> None:
    """Tries the job's configurations, and no others, and writes what came out."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sizes: set[int] = set()

    def objective(trial: optuna.Trial) -> float:
        config = {
            "lr": trial.suggest_float("lr", *LR, log=True),
            "weight_decay": trial.suggest_float("weight_decay", *WEIGHT_DECAY, log=True),
            "augment": trial.suggest_categorical("augment", [False, True]),
        }
        torch.manual_seed(1000 * job.seed + trial.number)
        network = make_network(job.network, job.classes)
        sizes.add(sum(parameter.numel() for parameter in network.parameters()))
        return score(network, config)

    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.NopPruner())
    for config in job.configs:
        study.enqueue_trial(config)
    study.optimize(objective, n_trials=len(job.configs))
    outcome = {
        "parameters": max(sizes),
        "trials": [{**trial.params, "accuracy": trial.value} for trial in study.trials],
    }
    Path(job.result).write_text(json.dumps(outcome), encoding="utf-8")


def main() -> None:
    job = read_job(sys.argv[1])
    if job.arm == "folder":
        make_loaders = functools.partial(folder_loaders, job)
    else:
        parts = decoded(Path(job.data) / "train"), decoded(Path(job.data) / "val")
        make_loaders = functools.partial(memory_loaders, job, parts)

    def score(network: nn.Module, config: Config) -> float:
        return train(network, make_loaders(augment=config["augment"]), config, job.epochs)

    run_study(job, score)


if __name__ == "__main__":
    main()
