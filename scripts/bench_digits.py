"""The default search on ten splits fixed in advance, beside a support vector machine.

    .venv/bin/python scripts/bench_digits.py [--runs DIR] [--splits 10]

For each split seed 0..9: `hpsearch search` with its defaults, the best trial exported once (that
is the only look at the test images), and an RBF support vector machine (scikit-learn) fitted
on the same training images, its C and gamma chosen on the same validation images. Prints test
accuracies, their mean and standard deviation. An interrupted benchmark goes on where it was.
Takes about 15 minutes on two CPU cores.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from pathlib import Path

import numpy as np
import optuna
from sklearn.svm import SVC

from hpsearch import SplitSpec, StudySpec, export, load_dataset, load_search, search
from hpsearch.data.splits import make_split


def svm_accuracy(split: SplitSpec) -> float:
    dataset = load_dataset("digits")
    rows = make_split(dataset, split)
    pixels = dataset.images.reshape(len(dataset), -1) / 255.0
    best = max(
        (
            SVC(C=c, gamma=gamma).fit(pixels[rows.train], dataset.labels[rows.train])
            for c, gamma in itertools.product((1.0, 3.0, 10.0, 30.0), (0.03, 0.1, 0.2, 0.4))
        ),
        key=lambda svm: svm.score(pixels[rows.val], dataset.labels[rows.val]),
    )
    return float(best.score(pixels[rows.test], dataset.labels[rows.test]))


def search_accuracy(split: SplitSpec, runs: Path) -> tuple[float, str, int]:
    spec = StudySpec(name=f"digits-split-{split.seed}", split=split)
    record = search(spec, runs=runs)
    folder = runs / spec.name / "export"
    if not (folder / "metrics.json").is_file():
        export(record.best, folder)
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    openings = load_search(runs, spec.name).openings
    return metrics["test"]["accuracy"], record.best.name, len(openings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs-benchmark"))
    parser.add_argument("--splits", type=int, default=10)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found, svm = [], []
    for seed in range(arguments.splits):
        split = SplitSpec(seed=seed)
        start = time.perf_counter()
        accuracy, trial, openings = search_accuracy(split, arguments.runs)
        found.append(accuracy)
        svm.append(svm_accuracy(split))
        print(
            f"split {seed}: search {accuracy:.2%} ({trial}, test split opened {openings}x, "
            f"{time.perf_counter() - start:.0f} s)  svm {svm[-1]:.2%}",
            flush=True,
        )
    for name, values in (("search", found), ("svm", svm)):
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{name}: mean {np.mean(values):.2%}, standard deviation {spread:.2%}")
    wins = sum(a > b for a, b in zip(found, svm, strict=True))
    losses = sum(a < b for a, b in zip(found, svm, strict=True))
    print(f"search above svm on {wins} splits, below on {losses}, equal on the rest")


if __name__ == "__main__":
    main()
