"""The trainer: how near an epoch comes to its bare steps, and how many trainings share a device.

    .venv/bin/python scripts/bench_trainer.py [--models logistic,mlp,cnn,resnet18,mobilenet]
        [--rounds 5] [--threads N] [--device auto] [--workers 1,2] [--json]

Three tables, on images of noise that are made here (about 5 minutes on two cores).

Efficiency: T_bare / T_epoch. T_bare is forward, backward and step on batches that are ready;
T_epoch is a whole epoch of the trainer (shuffling, augmentation, losses, scores, reports) without
its validation, whose share of the epoch stands beside it. MFU: multiplications that the model
needs (three times those of a forward pass), against the fastest matrix product of this device in
the same precision, so that a slow bare step cannot flatter. Each model trains in the setting that
the trainer's own probe chooses. "flip, turn, colour" is hflip, rotate, translate, brightness,
contrast and saturation.

Hand-written: epochs of the trainer on the cnn with flips, against the loop that one would write for
this network alone (resident uint8, channels_last, the same precision, fused optimizer, batched
flip; on a GPU compiled).

Workers: images a second of all trainings together, for so many processes on one device; on a CPU
each has one thread, and one process with all threads stands beside them.

Bare, epoch and hand-written passes take turns within a round. Figures are medians over rounds, with
the lowest and highest; efficiency is the median of each round's.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import json
import multiprocessing
import queue
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from bench_common import in_turn, spread
from torch import Tensor

from hpsearch.config import OptimizerConfig, ScheduleConfig, TrainConfig
from hpsearch.data.batches import train_batches
from hpsearch.data.preprocessing import Preprocessing
from hpsearch.data.resident import ResidentData, ResidentImages
from hpsearch.families import build_model
from hpsearch.training.device import resolve_device, wait_for
from hpsearch.training.evaluation import outputs
from hpsearch.training.layers import layer_table, totals
from hpsearch.training.memory import keep_freed_memory
from hpsearch.training.model import place
from hpsearch.training.probe import choose_setting
from hpsearch.training.seeds import seeded
from hpsearch.training.step import Step, autocast
from hpsearch.training.trainer import Training
from hpsearch.training.tuning import Tuning, device_name

CLASSES = 10
LONG = 1_000_000
"""Steps: a training that is worth a probe."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A model at a size; `images` of training, on a CPU, an epoch of about a second."""

    family: str
    options: dict[str, Any]
    side: int
    batch_size: int
    images: int


CASES = {
    "logistic": Case("logistic", {}, 32, 128, 16_000),
    "mlp": Case("mlp", {"layers": 2, "width": 512}, 32, 128, 8_000),
    "cnn": Case("cnn", {"blocks": 3, "convs": 1, "channels": 32}, 32, 128, 4_000),
    "resnet18": Case("resnet", {}, 64, 64, 512),
    "mobilenet": Case("mobilenet", {}, 64, 64, 512),
}
AUGMENT = {
    "hflip": 0.5,
    "rotate": 10.0,
    "translate": 0.1,
    "brightness": 0.2,
    "contrast": 0.2,
    "saturation": 0.2,
}


def noise(case: Case, device: torch.device, *, times: int) -> ResidentData:
    """Training images of noise, and a fifth as many for validation."""
    random = np.random.default_rng(0)
    count = case.images * times

    def images(n: int) -> ResidentImages:
        pixels = random.integers(0, 256, (n, case.side, case.side, 3), dtype=np.uint8)
        labels = torch.from_numpy(np.arange(n) % CLASSES)
        return ResidentImages(
            torch.from_numpy(pixels).to(device), torch.arange(n, device=device), labels.to(device)
        )

    preprocessing = Preprocessing(
        height=case.side, width=case.side, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3
    )
    classes = tuple(f"class {number}" for number in range(CLASSES))
    return ResidentData(images(count), images(max(1, count // 5)), classes, preprocessing)


def base_config(case: Case, augment: dict[str, float]) -> TrainConfig:
    return TrainConfig(
        family=case.family,
        options=case.options,
        batch_size=case.batch_size,
        epochs=LONG,
        optimizer=OptimizerConfig(lr=1e-4),
        schedule=ScheduleConfig(name="constant"),
        augment=augment,
    )


def chosen(
    config: TrainConfig, data: ResidentData, device: torch.device, tuning: Tuning
) -> TrainConfig:
    """`config` with the setting that the trainer's probe chooses."""
    shape = data.preprocessing.shape
    model = place(build_model(config, shape, CLASSES), device, "channels_last")
    choice = choose_setting(
        model,
        config,
        shape,
        CLASSES,
        device,
        steps=LONG,
        batch=config.batch_size,
        tuning=tuning,
    )
    return choice.setting.applied(config)


def seconds(run: Callable[[], object], device: torch.device) -> float:
    wait_for(device)
    start = time.perf_counter()
    run()
    wait_for(device)
    return time.perf_counter() - start


def peak_flops(device: torch.device, precision: str) -> float:
    """Multiplications and additions a second of the fastest matrix product found."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    best = 0.0
    for side in (512, 1024, 2048) if device.type == "cpu" else (2048, 4096, 8192):
        a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        a @ b
        took = min(seconds(lambda a=a, b=b: a @ b, device) for _ in range(5))
        best = max(best, 2 * side**3 / took)
    return best


def trainer_arms(
    config: TrainConfig, data: ResidentData, device: torch.device
) -> dict[str, Callable[[], object]]:
    """What is timed: all steps of an epoch, an epoch, its validation."""
    shape = data.preprocessing.shape
    model = place(build_model(config, shape, CLASSES), device, config.memory_format)
    step = Step(model.train(), config, data.class_counts, device)
    with seeded(0, device) as generator:
        batches = list(train_batches(data, config, generator))
    other = build_model(config, shape, CLASSES)
    epochs = Training(other, data, config, device=device).run()

    def bare() -> None:
        for batch in batches:
            step(batch, config.optimizer.lr)

    return {
        "bare": bare,
        "epoch": lambda: next(epochs),
        "validation": lambda: outputs(
            other, data.val, data.preprocessing, config.precision, config.memory_format
        ),
    }


def hand_written(
    config: TrainConfig, data: ResidentData, device: torch.device
) -> Callable[[], object]:
    """An epoch of the loop that one would write for one network on one device."""
    model = build_model(config, data.preprocessing.shape, CLASSES).train()
    model = place(model, device, "channels_last")
    forward = torch.compile(model) if device.type == "cuda" else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.optimizer.lr, fused=True)
    pixels, labels = data.train.pixels, data.train.labels
    mean, std = (
        torch.tensor(values, device=device).view(1, 3, 1, 1) * 255
        for values in (data.preprocessing.mean, data.preprocessing.std)
    )

    def flipped(images: Tensor) -> Tensor:
        turned = torch.rand(len(images), 1, 1, 1, device=device) < 0.5
        return torch.where(turned, images.flip(-1), images)

    def epoch() -> None:
        order = torch.randperm(len(labels), device=device)
        total = torch.zeros((), device=device)
        for chosen_rows in order.split(config.batch_size):
            images = (pixels[chosen_rows].permute(0, 3, 1, 2).float() - mean) / std
            with autocast(device, config.precision):
                logits = forward(flipped(images))
            loss = F.cross_entropy(logits.float(), labels[chosen_rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach()
        total.item()

    return epoch


def timed(
    arms: dict[str, Callable[[], object]], rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of each arm in each round."""
    return in_turn(
        {name: functools.partial(seconds, arm, device) for name, arm in arms.items()}, rounds
    )


def efficiency(
    names: list[str], rounds: int, device: torch.device, tuning: Tuning
) -> list[dict[str, Any]]:
    print(
        f"\n{'model':10} {'setting':22} {'augmentation':19} {'bare img/s':>20} {'epoch img/s':>12} "
        f"{'efficiency':>20} {'validation':>10} {'MFU':>6}"
    )
    peaks: dict[str, float] = {}
    rows = []
    for name in names:
        case = CASES[name]
        data = noise(case, device, times=1 if device.type == "cpu" else 8)
        for label, augment in (("none", {}), ("flip, turn, colour", AUGMENT)):
            config = chosen(base_config(case, augment), data, device, tuning)
            taken = timed(trainer_arms(config, data, device), rounds, device)
            n = len(data.train)
            shares = [
                bare / (epoch - validation)
                for bare, epoch, validation in zip(*taken.values(), strict=True)
            ]
            model = build_model(config, data.preprocessing.shape, CLASSES)
            flops = 6 * totals(layer_table(model, data.preprocessing.shape)).macs
            if config.precision not in peaks:
                peaks[config.precision] = peak_flops(device, config.precision)
            speed = spread([n / took for took in taken["bare"]])
            row = {
                "model": name,
                "setting": f"{config.precision} {config.memory_format} {config.execution}",
                "augmentation": label,
                "bare_images_per_second": speed,
                "epoch_images_per_second": spread(
                    [n / (e - v) for e, v in zip(taken["epoch"], taken["validation"], strict=True)]
                ),
                "efficiency": spread(shares),
                "validation_share": statistics.median(
                    v / e for v, e in zip(taken["validation"], taken["epoch"], strict=True)
                ),
                "mfu": speed["median"] * flops / peaks[config.precision],
            }
            rows.append(row)
            share = row["efficiency"]
            print(
                f"{name:10} {row['setting']:22.22} {label:19} {speed['median']:8,.0f} "
                f"({speed['lowest']:,.0f}-{speed['highest']:,.0f})"
                f"{row['epoch_images_per_second']['median']:>10,.0f} "
                f"{share['median']:>9.3f} ({share['lowest']:.2f}-{share['highest']:.2f}) "
                f"{row['validation_share']:>9.1%} {row['mfu']:>6.1%}",
                flush=True,
            )
    return rows


def against_hand_written(rounds: int, device: torch.device, tuning: Tuning) -> dict[str, Any]:
    case = CASES["cnn"]
    data = noise(case, device, times=1 if device.type == "cpu" else 8)
    data = dataclasses.replace(data, val=data.val.head(1))
    config = chosen(base_config(case, {"hflip": 0.5}), data, device, tuning)
    arms = {
        "trainer": trainer_arms(config, data, device)["epoch"],
        "hand-written": hand_written(config, data, device),
    }
    taken = timed(arms, rounds, device)
    ratio = spread([b / a for a, b in zip(taken["trainer"], taken["hand-written"], strict=True)])
    speeds = {name: spread([len(data.train) / took for took in taken[name]]) for name in arms}
    print(f"\ncnn with flips, {config.precision}: images/s")
    for name, speed in speeds.items():
        print(f"{name:14}{speed['median']:>9,.0f} ({speed['lowest']:,.0f}-{speed['highest']:,.0f})")
    print(
        f"trainer to hand-written: {ratio['median']:.2f} "
        f"({ratio['lowest']:.2f}-{ratio['highest']:.2f})"
    )
    return {"images_per_second": speeds, "ratio": ratio}


def _train_for(
    config: TrainConfig,
    device: torch.device,
    threads: int,
    barrier: Any,
    seconds_each: float,
    results: Any,
) -> None:
    """One of several processes: trains for a time, and tells how many images that were."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    case = CASES["cnn"]
    data = noise(case, device, times=1 if device.type == "cpu" else 8)
    model = build_model(config, data.preprocessing.shape, CLASSES)
    epochs = Training(model, data, config, device=device).run()
    next(epochs)
    barrier.wait()
    start, images = time.perf_counter(), 0
    while time.perf_counter() - start < seconds_each:
        next(epochs)
        images += len(data.train)
    results.put(images / (time.perf_counter() - start))


def together(config: TrainConfig, device: torch.device, workers: int, threads: int) -> float:
    """Images a second of so many trainings at once."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(workers), context.Queue()
    processes = [
        context.Process(target=_train_for, args=(config, device, threads, barrier, 8.0, results))
        for _ in range(workers)
    ]
    for process in processes:
        process.start()
    speeds: list[float] = []
    deadline = time.monotonic() + 600
    try:
        while len(speeds) < workers:
            codes = [process.exitcode for process in processes]
            if any(codes) or time.monotonic() > deadline:  # the others would wait for it
                raise SystemExit(f"a worker died or hangs; exit codes: {codes} (None: it runs)")
            with contextlib.suppress(queue.Empty):
                speeds.append(results.get(timeout=1))
    finally:
        for process in processes:
            if len(speeds) < workers:
                process.terminate()
            process.join()
    return sum(speeds)


def concurrency(
    counts: list[int], rounds: int, device: torch.device, tuning: Tuning
) -> dict[str, Any]:
    case = CASES["cnn"]
    data = noise(case, device, times=1)
    config = chosen(base_config(case, {"hflip": 0.5}), data, device, tuning)
    all_threads = torch.get_num_threads()
    single = 1 if device.type == "cpu" else all_threads
    arms = {f"{count} of {single} thread": (count, single) for count in counts}
    if device.type == "cpu" and all_threads > 1:
        arms[f"1 of {all_threads} threads"] = (1, all_threads)
    found: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(rounds):
        for name, (count, threads) in arms.items():
            found[name].append(together(config, device, count, threads))
    print(f"\ncnn with flips, {config.precision}: images/s of all workers together")
    rows = {name: spread(values) for name, values in found.items()}
    first = next(iter(rows.values()))["median"]
    for name, row in rows.items():
        print(
            f"{name:16}{row['median']:>9,.0f} ({row['lowest']:,.0f}-{row['highest']:,.0f})"
            f"{row['median'] / first:>8.2f}"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", help="numbers of processes; by default 1 to 2, GPUs 1 to 8")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON, too")
    arguments = parser.parse_args()
    device = resolve_device(arguments.device)
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    counts = arguments.workers or ("1,2" if device.type == "cpu" else "1,2,3,4,6,8")
    print(f"{device_name(device)}; torch {torch.__version__}; {arguments.rounds} rounds")
    with TemporaryDirectory() as folder:
        tuning = Tuning(Path(folder) / "tuning.json")
        results = {
            "efficiency": efficiency(arguments.models.split(","), arguments.rounds, device, tuning),
            "hand-written": against_hand_written(arguments.rounds, device, tuning),
            "workers": concurrency(
                [int(count) for count in counts.split(",")], arguments.rounds, device, tuning
            ),
        }
    if arguments.json:
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
