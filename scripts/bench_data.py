"""Reading data: conversion against a plain loop, random batches against RAM, map and HDF5.

    .venv/bin/python scripts/bench_data.py [--photos 400] [--images 20000] [--rounds 5] [--json]

Two tables. Conversion: JPEG photos of 1200x1600 pixels (made here) to 256x256 in one HDF5 file, by
a loop that a user would write (Pillow, one thread, every image decoded in full), and by `hpsearch
data convert` with one worker and with one for each core; then the same for smaller photos. Random
batches: batches of 128 from images of 64x64x3, as uint8, from RAM, from a raw memory map, from our
store, and image by image from HDF5. The arms of a table take turns within a round; the figures are
medians over the rounds, with the lowest and highest. Ratios are medians of each round's ratio.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from bench_common import in_turn, spread
from PIL import Image, ImageFilter

from hpsearch.data.convert import convert
from hpsearch.data.decode import default_workers
from hpsearch.data.resident import ResidentImages
from hpsearch.data.spec import DataSpec
from hpsearch.data.store import load_dataset

SIZE = 256
BATCH = 128
Arm = Callable[[], int]


def make_photos(folder: Path, count: int, height: int, width: int) -> None:
    """JPEG files that are as hard to decode as photos: shapes, shades and grain."""
    random = np.random.default_rng(0)
    for number in range(count):
        path = folder / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        grain = random.normal(0, 12, (height // 2, width // 2, 3)).repeat(2, 0).repeat(2, 1)
        pixels = np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(0.7)).save(path, quality=90)


def plain_loop(folder: Path, out: Path) -> int:
    """What one writes in a notebook: decode, crop, resize, append."""
    files = sorted(folder.rglob("*.jpg"))
    with h5py.File(out, "w") as file:
        images = file.create_dataset("images", (len(files), SIZE, SIZE, 3), np.uint8)
        for row, path in enumerate(files):
            with Image.open(path) as opened:
                image = opened.convert("RGB")
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            square = image.crop((left, top, left + side, top + side))
            images[row] = np.asarray(square.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    return len(files)


def conversion_arms(photos: Path, out: Path) -> dict[str, Arm]:
    spec = DataSpec(source=str(photos), size=(SIZE, SIZE), gray=False)

    def ours(workers: int) -> Arm:
        return lambda: len(
            h5py.File(convert(spec, out / "ours.h5", replace=True, workers=workers).path)["labels"]
        )

    cores = default_workers()
    return {
        "plain Pillow loop": lambda: plain_loop(photos, out / "plain.h5"),
        "hpsearch, 1 worker": ours(1),
        f"hpsearch, {cores} workers": ours(cores),
    }


def batch_arms(count: int, folder: Path) -> dict[str, Arm]:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
    labels = np.arange(count) % 10
    np.savez(folder / "images.npz", images=images, labels=labels)
    images.tofile(folder / "images.raw")
    for name, chunks in (("by image", (1, 64, 64, 3)), ("by 128", (128, 64, 64, 3))):
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file.create_dataset("images", data=images, chunks=chunks)
    mapped = np.memmap(folder / "images.raw", np.uint8, mode="r", shape=images.shape)
    dataset = load_dataset(folder / "images.npz")
    store = ResidentImages.of(dataset.part(), torch.device("cpu"))

    order = random.permutation(count)

    def drawn(fetch: Callable[[Any], object], batches: int, kind: Callable = np.asarray) -> Arm:
        # The trainer draws torch's indices, the other arms take NumPy's: neither is converted here.
        chosen = [kind(order[start : start + BATCH]) for start in range(0, count - BATCH, BATCH)]

        def run() -> int:
            for number in range(batches):
                fetch(chosen[number % len(chosen)])
            return batches * BATCH

        return run

    def one_by_one(name: str) -> Callable[[np.ndarray], object]:
        def fetch(rows: np.ndarray) -> object:
            with h5py.File(folder / f"{name}.h5") as file:
                stored = file["images"]
                return np.stack([stored[row] for row in rows])

        return fetch

    return {
        "array in RAM": drawn(lambda rows: images[rows], 400),
        "raw memory map": drawn(lambda rows: mapped[rows], 400),
        "our store": drawn(store.raw_batch, 400, torch.from_numpy),
        "HDF5, chunked by image": drawn(one_by_one("by image"), 4),
        "HDF5, chunked by 128": drawn(one_by_one("by 128"), 1),
    }


def measure(arms: dict[str, Arm], rounds: int) -> dict[str, list[float]]:
    """Images per second of each arm in each round."""

    def rate(arm: Arm) -> float:
        start = time.perf_counter()
        return arm() / (time.perf_counter() - start)

    return in_turn({name: functools.partial(rate, arm) for name, arm in arms.items()}, rounds)


def table(title: str, rates: dict[str, list[float]], base: str) -> dict[str, dict[str, float]]:
    print(f"\n{title}")
    print(f"{'':26}{'images/s':>10}{'lowest':>10}{'highest':>10}   ratio to {base!r}")
    rows = {}
    for name, values in rates.items():
        ratios = [value / other for value, other in zip(values, rates[base], strict=True)]
        row = rows[name] = {**spread(values), "ratio": statistics.median(ratios)}
        print(
            f"{name:26}{row['median']:>10,.0f}{row['lowest']:>10,.0f}{row['highest']:>10,.0f}"
            f"{row['ratio']:>10.2f}"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=400)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON, too")
    arguments = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["HPSEARCH_CACHE"] = str(folder / "cache")
        for height, width, count in (
            (1200, 1600, arguments.photos // 4),
            (300, 400, arguments.photos),
        ):
            photos = folder / f"{height}x{width}"
            make_photos(photos, count, height, width)
            title = f"{count} JPEG photos of {height}x{width} to {SIZE}x{SIZE} HDF5"
            rates = measure(conversion_arms(photos, folder), arguments.rounds)
            results[title] = table(title, rates, "hpsearch, 1 worker")
        title = f"random batches of {BATCH} from {arguments.images:,} images of 64x64x3"
        rates = measure(batch_arms(arguments.images, folder), arguments.rounds)
        results[title] = table(title, rates, "raw memory map")
    if arguments.json:
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
