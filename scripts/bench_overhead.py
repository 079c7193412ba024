"""The search around the training: what it costs, how that grows, and what workers gain.

    .venv/bin/python scripts/bench_overhead.py [--part share growth workers] [--rounds 3]
        [--postgres | --storage URL] [--folder DIR] [--sizes 100,1000,5000] [--json] [--smoke]

Three tables, on the digits and the cnn, on a CPU.

share: a whole search of trials of about 10 s on one thread, nothing pruned, in this process; their
network is such that they have about as many epochs as the default search. What is not an epoch
(sampler, storage, reports, building models, start-up) as a share of the time, with and without
start-up; start-up begins with importing the library, which is measured by itself. The columns
behind it say where the rest lies: before a trial's training, between its epochs, after it.

growth: one trial's bookkeeping, at 100, 1,000 and 5,000 finished trials, in milliseconds. The
finished trials are written straight into the database, drawn at random from the cnn's space, with
attributes and reports as the engine leaves them, a third of them pruned half-way. Then trials run
through the engine's own worker: claim, TPE in the real space, 20 reports, the pruner, attributes,
checkpoint, `tell`; only the model is a tiny one, and its epochs take no time. Columns are the steps
of a trial; behind them, in seconds, what a process that is started does once: it finds the search
in the database, reads its trials, and tidies up their folders. The sizes take turns, and ratios are
those of the same turn. --profile prints what the largest size spends its time on.

workers: trials an hour of two workers with one thread each, of one worker and of the search's own
process with all threads; the same specification, nothing pruned. The arms take turns, and begin
with another one in each round; ratios are those of the same round.

By default the database is a SQLite file in a temporary folder; where that lies in memory, writing
costs less than on a disk: --folder names another one. --postgres adds a throw-away server (its
programs must be in /usr/lib/postgresql), --storage a database that is for this alone: what is
written there stays, and is found by the next "find". Figures are medians, with the lowest and
highest.

On two cores, a storage: share 1.5 minutes a round, growth 1.5 minutes, workers 4 minutes a round.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import optuna
import torch
from bench_common import FAMILY, NETWORK, Bench, fresh_name, postgres_server, shown, spread
from bench_overhead_growth import growth

from hpsearch import StudySpec, search
from hpsearch.engine.events import (
    EpochFinished,
    Event,
    SearchStarted,
    TrialFinished,
    TrialStarted,
)
from hpsearch.engine.place import Place
from hpsearch.engine.search import plan
from hpsearch.training.memory import keep_freed_memory

PARTS = ("share", "growth", "workers")


def whole_search(bench: Bench) -> StudySpec:
    """A search of trials of about so many seconds on one thread."""
    spec = StudySpec(
        families=(FAMILY,),
        trials=bench.trials,
        epochs=10,
        pruner="none",
        precision="fp32",
        overrides=NETWORK,
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        pace = plan(spec, runs=Path(folder) / "runs", device="cpu").estimates[0].epoch_seconds
    torch.set_num_threads(threads)
    return dataclasses.replace(spec, epochs=max(2, round(bench.seconds / pace)))


class Stopwatch:
    """Watches a search that runs in this process: how long what took."""

    def __init__(self) -> None:
        self.epochs: list[float] = []
        self.apart = {"before": 0.0, "between": 0.0, "after": 0.0}
        self.started = 0.0
        self._last = 0.0
        self._where = "before"

    def watch(self, event: Event) -> None:
        """To be told what happens."""
        now = time.perf_counter()
        match event:
            case SearchStarted():
                self.started = now
            case TrialStarted():  # what lies in front of the first step comes later
                return
            case EpochFinished(result=result):
                self.epochs.append(result.seconds)
                self.apart[self._where] += now - self._last - result.seconds
                self._where = "between"
            case TrialFinished():
                self.apart["after"] += now - self._last
                self._where = "before"
        self._last = now


def imports() -> float:
    """Seconds to start Python and load the library, until a search can begin."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", "import hpsearch.cli.main, hpsearch.engine.search"], check=True
    )
    return time.perf_counter() - start


def share(bench: Bench) -> dict[str, Any]:
    torch.set_num_threads(1)
    spec = whole_search(bench)
    rows: dict[str, Any] = {}
    for storage, new_place in bench.places.items():
        place = new_place()
        found: dict[str, list[float]] = {}
        for _ in range(bench.rounds):
            loading = imports()
            watch = Stopwatch()
            begun = time.perf_counter()
            record = search(
                dataclasses.replace(spec, name=fresh_name()),
                runs=place.runs,
                storage=place.address,
                device="cpu",
                watch=watch.watch,
            )
            ended = time.perf_counter()
            if record.count("complete") != spec.trials:
                raise SystemExit(
                    f"not all trials are complete: {[t.failure for t in record.trials]}"
                )
            trained = sum(watch.epochs)
            whole, running = loading + ended - begun, ended - watch.started
            values = {
                "trial_seconds": trained / spec.trials,
                "whole": 1 - trained / whole,
                "running": 1 - trained / running,
                "start_seconds": whole - running,
                **{name: seconds / spec.trials for name, seconds in watch.apart.items()},
            }
            for name, value in values.items():
                found.setdefault(name, []).append(value)
        rows[storage] = {name: spread(values) for name, values in found.items()}
    print(
        f"\nshare: overhead of {spec.trials} trials of {spec.epochs} epochs, one thread\n"
        f"{'storage':11}{'trial':>7}{'with start-up':>26}{'without':>26}{'start-up':>10}"
        f"{'before':>9}{'between':>9}{'after':>9}"
    )
    for storage, row in rows.items():
        middle = {name: value["median"] for name, value in row.items()}
        print(
            f"{storage:11}{middle['trial_seconds']:>5.1f} s{shown(row['whole'], '{:.2%}'):>26}"
            f"{shown(row['running'], '{:.2%}'):>26}{middle['start_seconds']:>8.1f} s"
            + "".join(f"{middle[name] * 1000:>6.0f} ms" for name in ("before", "between", "after")),
            flush=True,
        )
    return rows


def workers(bench: Bench) -> dict[str, Any]:
    threads = default_threads()
    torch.set_num_threads(threads)
    spec = whole_search(bench)
    arms = {
        f"this process, {threads} threads": 0,
        f"1 worker, {threads} threads": 1,
        f"{threads} workers, 1 thread": threads,
    }
    rows: dict[str, Any] = {}
    for storage, new_place in bench.places.items():
        place = new_place()
        found: dict[str, list[float]] = {name: [] for name in arms}
        for number in range(bench.rounds):
            first = number % len(arms)
            for name in (*list(arms)[first:], *list(arms)[:first]):
                begun = time.perf_counter()
                record = search(
                    dataclasses.replace(spec, name=fresh_name()),
                    runs=place.runs,
                    storage=place.address,
                    device="cpu",
                    workers=arms[name],
                )
                found[name].append(3600 * len(record.ranked()) / (time.perf_counter() - begun))
        base = found[next(iter(arms))]
        rows[storage] = {
            name: {
                "trials_an_hour": spread(values),
                "ratio": spread([own / other for own, other in zip(values, base, strict=True)]),
            }
            for name, values in found.items()
        }
    print(
        f"\nworkers: trials an hour, of {spec.trials} trials of {spec.epochs} epochs\n"
        f"{'storage':11}{'arm':28}{'trials an hour':>24}{'ratio':>24}"
    )
    for storage, table in rows.items():
        for name, row in table.items():
            print(
                f"{storage:11}{name:28}{shown(row['trials_an_hour'], '{:.0f}'):>24}"
                f"{shown(row['ratio'], '{:.2f}'):>24}",
                flush=True,
            )
    return rows


@functools.cache
def default_threads() -> int:
    """What torch takes by itself."""
    return torch.get_num_threads()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=3, help="of share and workers")
    parser.add_argument("--trials", type=int, help="of a search; by default 5, with workers 8")
    parser.add_argument("--seconds", type=float, default=10.0, help="of a trial, on one thread")
    parser.add_argument("--sizes", default="100,1000,5000", help="finished trials, for growth")
    parser.add_argument("--bookkept", type=int, default=10, help="trials measured at each size")
    parser.add_argument("--folder", type=Path, help="where SQLite files and checkpoints lie")
    parser.add_argument("--storage", help="address of a PostgreSQL database, for this alone")
    parser.add_argument("--postgres", action="store_true", help="start a throw-away server")
    parser.add_argument("--profile", action="store_true", help="of growth, at the largest size")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, a minute a storage")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON, too")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.rounds, arguments.trials, arguments.seconds = 1, 2, 1.0
        arguments.sizes, arguments.bookkept = "20,60", 3
    try:
        sizes = tuple(sorted(int(size) for size in arguments.sizes.split(",")))
    except ValueError:
        parser.error(f"--sizes must be whole numbers such as 100,1000; got {arguments.sizes}")
    counts = (arguments.rounds, arguments.bookkept, sizes[0] - 9, arguments.trials or 1)
    if min(counts) < 1 or arguments.seconds <= 0:
        parser.error("rounds, bookkept, trials and seconds must be above 0, sizes 10 or more")
    default_threads()
    keep_freed_memory()
    # Otherwise a server would outlive it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with contextlib.ExitStack() as stack:
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=arguments.folder)))
        os.environ["HPSEARCH_CACHE"] = str(temporary / "cache")

        def new_folder() -> Path:
            return temporary / secrets.token_hex(4)

        places = {"SQLite": lambda: Place.of(new_folder())}
        new_database = None
        if arguments.postgres:
            new_database = stack.enter_context(postgres_server())
        elif arguments.storage:
            new_database = functools.partial(str, arguments.storage)
        if new_database is not None:
            places["PostgreSQL"] = lambda: Place.of(new_folder(), new_database())
        bench = Bench(
            places=places,
            sizes=sizes,
            bookkept=arguments.bookkept,
            trials=0,
            seconds=arguments.seconds,
            rounds=arguments.rounds,
            profile=arguments.profile,
        )
        print(
            f"{default_threads()} threads, torch {torch.__version__}, optuna {optuna.__version__}"
        )
        measures = {"share": (share, 5), "growth": (growth, 0), "workers": (workers, 8)}
        results = {
            part: measure(dataclasses.replace(bench, trials=arguments.trials or usual))
            for part, (measure, usual) in measures.items()
            if part in arguments.part
        }
    if arguments.json:
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
