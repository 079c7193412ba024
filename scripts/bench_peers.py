"""Whole searches of the same trials by hpsearch and by what one would write without it.

    .venv/bin/python scripts/bench_peers.py [--network cnn|resnet18] [--rounds 3] [--seeds 3]
        [--images N] [--epochs N] [--trials N] [--arms NAME ...] [--data FOLDER] [--json]

Each arm is a process of its own (with workers, several), measured from its start to its end:
imports, decoding and validation after each epoch are in it. All arms train the same network from
the same kind of initial weights on the same PNG files, with the same configurations: AdamW without
warm-up, cosine schedule step by step, in two groups of weight decay three learning rates, each
without augmentation and with flips, rotation and colour jitter. Nothing is pruned. CPU only, all
threads that torch takes unless the arm says otherwise. The peers compute in fp32, as one writes it;
hpsearch chooses its precision (--precision forces it). The arms (`--arms` leaves some):

- folder: Optuna, ImageFolder, torchvision's transforms image by image, DataLoader with 2 workers.
- memory: Optuna, all images in a TensorDataset, the same transforms image by image.
- batch: as memory, the transforms drawn once a batch: cheaper, but not the same augmentation.
- lightning: Lightning and Optuna on the loaders of "folder"; needs Lightning (the extra "bench").
- hpsearch: `hpsearch search`, one worker. It also estimates its time, stores each trial and keeps
  checkpoints, which the others do not.
- cores: one search of hpsearch, too, with as many workers as there are cores, one thread each.

The images are letters before clutter (hpsearch's source "glyphs") in 10 classes of one size, and
a fifth as many for validation; with --data they are kept for the next time. The arms take turns
within a round; a round's seed is its number modulo --seeds. Figures are medians over the rounds,
with lowest and highest; ratios are medians of each round's ratio. Accuracy is that of a trial's
best epoch; its mean over the trials, and the best trial's, are given as mean over the seeds, with
lowest and highest. The difference to the first arm is the mean over pairs of trials of the same
configuration and seed, with its standard error: where it is less than twice that, it is noise.

On two cores a round takes 15 to 25 minutes with cnn and 4 with resnet18, which learns little in
that time. About 10 minutes in all: --images 4000 --epochs 4 --trials 4 --rounds 2 --seeds 2.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_peers_plain import DEGREES, HFLIP, JITTER, LR, WEIGHT_DECAY, Config, Job
from PIL import Image
from rich.console import Console
from rich.table import Table

from hpsearch import DataSpec, TrialRecord, load_dataset, load_search
from hpsearch.data.decode import default_workers
from hpsearch.data.sources.glyphs import LETTERS

HERE = Path(__file__).resolve().parent
CLASSES = 10
CONFIGS: tuple[Config, ...] = tuple(
    {"lr": lr, "weight_decay": weight_decay, "augment": augment}
    for weight_decay, lr, augment in itertools.product(
        WEIGHT_DECAY, (LR[0], 2e-3, LR[1]), (False, True)
    )
)
STRENGTHS = {
    "hflip": HFLIP,
    "rotate": DEGREES,
    "brightness": JITTER,
    "contrast": JITTER,
    "saturation": JITTER,
}
# What the families of hpsearch have beyond the peers is fixed; what varies gets a range.
SET: dict[str, Any] = {
    "optimizer": "adamw",
    "decay_all": "yes",
    "lr": f"{LR[0]}..{LR[1]}",
    "weight_decay": f"{WEIGHT_DECAY[0]}..{WEIGHT_DECAY[1]}",
    "schedule": "cosine",
    "warmup": 0,
    "dropout": 0,
    "dropout_schedule": "constant",
    "label_smoothing": 0,
    "normalise": "imagenet",
    **{name: f"0..{strength}" for name, strength in STRENGTHS.items()},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """A network: the images it gets, how much of them by default, and hpsearch's words for it."""

    side: int
    batch: int
    images: int
    epochs: int
    trials: int
    overrides: Mapping[str, Any]


SETTINGS = {
    "cnn": Setting(
        side=32,
        batch=128,
        images=8000,
        epochs=3,
        trials=12,
        overrides={
            "widths": "32/64/128",
            "convs": 1,
            "hidden": 0,
            "view": "avg",
            "translate": 0,
            "scale": 0,
        },
    ),
    "resnet18": Setting(
        side=64,
        batch=64,
        images=1000,
        epochs=4,
        trials=2,
        overrides={"depth": 18, "weights": "none", "resized_crop": 0, "jitter": 0},
    ),
}


def arm_labels() -> dict[str, str]:
    return {
        "folder": "Optuna + ImageFolder + DataLoader(num_workers=2)",
        "memory": "Optuna + TensorDataset, transforms by image",
        "batch": "Optuna + TensorDataset, transforms by batch (weaker)",
        "lightning": "Lightning + Optuna + ImageFolder, num_workers=2",
        "hpsearch": "hpsearch, one worker, all threads",
        "cores": f"hpsearch, {default_workers()} workers, one thread each",
    }


def make_images(folder: Path, images: int, side: int) -> None:
    """Writes PNG files into train/, val/ and test/, a folder for each class."""
    rounds = {"train": images // CLASSES, "val": max(1, images // CLASSES // 5), "test": 2}
    total = sum(rounds.values())
    options = {"images": total * CLASSES, "letters": CLASSES}
    dataset = load_dataset(DataSpec(source="glyphs", size=(side, side), options=options))
    # A round has each letter once, in one font: dealt out whole, the parts are balanced.
    order = np.random.default_rng(0).permutation(total)
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    ends = np.cumsum(list(rounds.values()))
    for part, chosen in zip(rounds, np.split(order, ends[:-1]), strict=True):
        for place in range(CLASSES):
            letter = unfinished / part / LETTERS[place]
            letter.mkdir(parents=True)
            for number in chosen * CLASSES + place:
                Image.fromarray(dataset.images[number]).save(letter / f"{number}.png")
    unfinished.rename(folder)


def check_images(folder: Path, images: int, side: int) -> None:
    """Exits unless a folder that is there already holds what this benchmark would make."""
    pictures = sorted((folder / "train").glob("*/*.png"))
    size = Image.open(pictures[0]).size if pictures else None
    if len(pictures) != images or size != (side, side):
        raise SystemExit(
            f"{folder} has {len(pictures)} training images of {size}, but {images} of "
            f"{(side, side)} are asked for; name another folder, and it will be made"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench:
    """What all arms have in common."""

    network: str
    data: Path
    images: int
    epochs: int
    configs: tuple[Config, ...]
    precision: str

    @property
    def shown(self) -> int:
        """Training images that all trials of an arm are shown."""
        return self.images * self.epochs * len(self.configs)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """One run of an arm: seconds, the accuracy of each trial, the network's parameters."""

    seconds: float
    accuracies: tuple[float, ...]
    parameters: int
    precision: str = "fp32"


def run_arm(bench: Bench, arm: str, seed: int) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        if arm == "hpsearch":
            return run_hpsearch(bench, seed, Path(folder), workers=0)
        if arm == "cores":
            return run_hpsearch(bench, seed, Path(folder), workers=default_workers())
        return run_peer(bench, arm, seed, Path(folder))


def run_peer(bench: Bench, arm: str, seed: int, folder: Path) -> Outcome:
    job = Job(
        arm=arm,
        network=bench.network,
        data=str(bench.data),
        classes=CLASSES,
        epochs=bench.epochs,
        batch=SETTINGS[bench.network].batch,
        seed=seed,
        configs=bench.configs,
        result=str(folder / "result.json"),
    )
    path = folder / "job.json"
    path.write_text(json.dumps(dataclasses.asdict(job)), encoding="utf-8")
    script = "bench_peers_lightning.py" if arm == "lightning" else "bench_peers_plain.py"
    seconds = timed([sys.executable, str(HERE / script), str(path)], {}, folder)
    result = json.loads(Path(job.result).read_text(encoding="utf-8"))
    trials = result["trials"]
    tried = [{name: trial[name] for name in bench.configs[0]} for trial in trials]
    if tried != list(bench.configs):
        raise SystemExit(f"{arm} tried other configurations: {tried}")
    return Outcome(
        seconds=seconds,
        accuracies=tuple(trial["accuracy"] for trial in trials),
        parameters=result["parameters"],
    )


def run_hpsearch(bench: Bench, seed: int, folder: Path, *, workers: int) -> Outcome:
    setting = SETTINGS[bench.network]
    # Where epochs can vary, no trial is pruned; all of these have as many.
    epochs = f"{bench.epochs}..{bench.epochs + 1}"
    chosen = {
        **SET,
        **setting.overrides,
        "batch_size": setting.batch,
        "epochs": epochs,
    }
    job = {
        "network": bench.network,
        "epochs": bench.epochs,
        "configs": bench.configs,
        "augment": STRENGTHS,
    }
    path, runs = folder / "job.json", folder / "runs"
    path.write_text(json.dumps(job), encoding="utf-8")
    command = [hpsearch_command(), "search", "--data", str(bench.data), "--name", "bench"]
    command += ["--family", str(HERE / "bench_peers_family.py"), "--seed", str(seed)]
    command += ["--runs", str(runs), "--trials", str(len(bench.configs))]
    command += ["--device", "cpu", "--precision", bench.precision, "--workers", str(workers)]
    for name, value in chosen.items():
        command += ["--set", f"{name}={value}"]
    own = {"HPSEARCH_CACHE": str(folder / "cache"), "BENCH_PEERS_JOB": str(path)}
    seconds = timed(command, own, folder)
    record = load_search(runs, "bench")
    trials = record.trials
    for trial, config in zip(trials, bench.configs, strict=True):
        check_trial(trial, config, bench)
    seen = record.data["counts"]["train"], record.data["shape"]["height"]
    if seen != (bench.images, setting.side):
        raise SystemExit(f"hpsearch trained on {seen[0]} images of {seen[1]} pixels")
    return Outcome(
        seconds=seconds,
        accuracies=tuple(float(trial.val_accuracy or 0.0) for trial in trials),
        parameters=trials[0].parameters,
        precision=trials[0].config.precision if trials[0].config else "",
    )


def check_trial(trial: TrialRecord, config: Config, bench: Bench) -> None:
    """Exits where a trial of hpsearch was not what the peers did."""
    strengths = {
        name: strength if config["augment"] else 0.0 for name, strength in STRENGTHS.items()
    }
    asked = {
        "lr": config["lr"],
        "weight_decay": config["weight_decay"],
        "epochs": bench.epochs,
        **strengths,
    }
    tried = {name: trial.params.get(name) for name in asked}
    if (trial.state, trial.epochs, tried) != ("complete", bench.epochs, asked):
        raise SystemExit(
            f"trial {trial.name} is {trial.state} after {trial.epochs} epochs of {tried}, but "
            f"{bench.epochs} of {asked} were asked for. {trial.failure}"
        )


def hpsearch_command() -> str:
    found = shutil.which("hpsearch", path=str(Path(sys.executable).parent))
    if found is None:
        raise SystemExit(f"no hpsearch beside {sys.executable}; install it there")
    return found


def timed(command: list[str], variables: dict[str, str], folder: Path) -> float:
    """Runs a command and returns the seconds until it has ended."""
    inherited = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    path = folder / "log.txt"
    with path.open("wb") as log:
        start = time.perf_counter()
        code = subprocess.run(  # noqa: S603
            command,
            env={**inherited, **variables},
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
        seconds = time.perf_counter() - start
    if code:
        text = path.read_text(encoding="utf-8", errors="replace")[-3000:]
        raise SystemExit(f"{' '.join(command)} ended with {code}:\n{text}")
    return seconds


def measure(bench: Bench, arms: Sequence[str], rounds: int, seeds: int) -> dict[str, list[Outcome]]:
    """The outcomes of each arm, round by round."""
    outcomes: dict[str, list[Outcome]] = {arm: [] for arm in arms}
    for number in range(rounds):
        for arm in arms:
            outcome = run_arm(bench, arm, number % seeds)
            outcomes[arm].append(outcome)
            line = f"round {number + 1}, {arm}: {outcome.seconds:.1f} s, {outcome.precision}"
            print(line, file=sys.stderr)
    sizes = {arm: {outcome.parameters for outcome in runs} for arm, runs in outcomes.items()}
    if len(set().union(*sizes.values())) != 1:
        raise SystemExit(f"the networks differ in their parameters: {sizes}")
    return outcomes


def summarise(
    bench: Bench, outcomes: Mapping[str, list[Outcome]], seeds: int
) -> dict[str, dict[str, Any]]:
    """The figures of each arm; the first is what the others are compared with."""
    base = next(iter(outcomes.values()))
    rows = {}
    for arm, runs in outcomes.items():
        seconds = [run.seconds for run in runs]
        once = runs[:seeds]  # the same seed again is no other sample
        pairs = [
            own - other
            for run, peer in zip(once, base[:seeds], strict=True)
            for own, other in zip(run.accuracies, peer.accuracies, strict=True)
        ]
        spread = statistics.stdev(pairs) / len(pairs) ** 0.5 if len(pairs) > 1 else 0.0
        rows[arm] = {
            "parameters": runs[0].parameters,
            "seconds": of_three(statistics.median, seconds),
            "images_per_second": of_three(statistics.median, [bench.shown / s for s in seconds]),
            "ratio": of_three(
                statistics.median,
                [peer.seconds / run.seconds for run, peer in zip(runs, base, strict=True)],
            ),
            "mean_accuracy": of_three(
                statistics.mean, [statistics.mean(run.accuracies) for run in once]
            ),
            "best_accuracy": of_three(statistics.mean, [max(run.accuracies) for run in once]),
            "difference": statistics.mean(pairs),
            "standard_error": spread,
            "accuracies": [run.accuracies for run in once],
        }
    return rows


def of_three(middle: Any, values: list[float]) -> tuple[float, float, float]:
    return middle(values), min(values), max(values)


def print_table(title: str, rows: Mapping[str, Mapping[str, Any]]) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("arm", min_width=24)
    for name in ("seconds", "images/s", "ratio", "mean accuracy", "best accuracy", "difference"):
        table.add_column(name, justify="right")
    for number, (arm, row) in enumerate(rows.items()):
        table.add_row(
            arm_labels()[arm],
            spread("{:,.1f}", row["seconds"]),
            spread("{:,.0f}", row["images_per_second"]),
            spread("{:.2f}", row["ratio"]),
            spread("{:.1%}", row["mean_accuracy"]),
            spread("{:.1%}", row["best_accuracy"]),
            f"{row['difference']:+.1%}\n±{row['standard_error']:.1%}" if number else "",
        )
    width = None if sys.stdout.isatty() else 120
    Console(width=width).print(table)


def spread(form: str, values: tuple[float, float, float]) -> str:
    middle, least, most = (form.format(value) for value in values)
    return f"{middle}\n{least} to {most}"


def chosen_arms(names: Sequence[str]) -> list[str]:
    """In the order of the table; without those that cannot run here."""
    arms = [name for name in arm_labels() if name in names]
    if "lightning" in arms and importlib.util.find_spec("lightning") is None:
        print("the arm lightning is left out: Lightning is not installed", file=sys.stderr)
        arms.remove("lightning")
    return arms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=SETTINGS, default="cnn")
    parser.add_argument("--images", type=int, help=f"training images, a multiple of {CLASSES}")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--trials", type=int, help=f"at most {len(CONFIGS)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", choices=arm_labels(), default=list(arm_labels()))
    parser.add_argument("--precision", default="auto", help="of hpsearch: auto, fp32 or bf16")
    parser.add_argument("--data", type=Path, help="where the images are, or are to be made")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON, too")
    arguments = parser.parse_args()
    setting = SETTINGS[arguments.network]
    images = arguments.images or setting.images
    epochs = arguments.epochs or setting.epochs
    trials = arguments.trials or setting.trials
    if images % CLASSES or not 1 <= trials <= len(CONFIGS):
        parser.error(f"images must be a multiple of {CLASSES}, and trials 1 to {len(CONFIGS)}")
    if min(images, epochs, arguments.rounds, arguments.seeds) < 1:
        parser.error("images, epochs, rounds and seeds must be at least 1")
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["HPSEARCH_CACHE"] = str(Path(temporary) / "cache")
        os.environ.pop("HPSEARCH_STORAGE", None)  # searches are to be in that folder, too
        data = (arguments.data or Path(temporary) / "letters").resolve()
        if data.exists():
            check_images(data, images, setting.side)
        else:
            make_images(data, images, setting.side)
        bench = Bench(
            network=arguments.network,
            data=data,
            images=images,
            epochs=epochs,
            configs=CONFIGS[:trials],
            precision=arguments.precision,
        )
        arms = chosen_arms(arguments.arms)
        outcomes = measure(bench, arms, arguments.rounds, arguments.seeds)
    rows = summarise(bench, outcomes, arguments.seeds)
    title = (
        f"{arguments.network}, {rows[arms[0]]['parameters']:,} parameters: {trials} trials of "
        f"{epochs} epochs on {images:,} images of {setting.side}x{setting.side}, batch "
        f"{setting.batch}; {default_workers()} cores, torch {torch.__version__}"
    )
    print_table(title, rows)
    if arguments.json:
        print(json.dumps({title: rows}, indent=2))


if __name__ == "__main__":
    main()
