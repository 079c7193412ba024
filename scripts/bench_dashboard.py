"""The dashboard: how soon a page is there, and what looking at it costs a worker.

    .venv/bin/python scripts/bench_dashboard.py [--part page slowdown] [--rounds 5] [--trials 1000]
        [--seconds 40] [--json]

page: seconds from opening the page of a study with 1,000 finished trials until the plot of its
history is drawn with all of them, in Chromium, each time with an empty cache. The study has a note
and an artifact (its history) for each trial, and parameters, reports and attributes as the engine
leaves them. Plain optuna-dashboard and `hpsearch dashboard` take turns; the first visit after the
start of a server is told apart, since it is the one that has to read everything.

slowdown: how long a search takes whose one worker has one thread, while the page of its study is
open, against how long it takes alone. The arms take turns, and begin with another one in each
round; ratios are those of the same round. On two cores, worker and browser have one each.

Needs Chromium. Figures are medians, with the lowest and highest; seconds depend on the machine and
on what else runs there. On two cores: page one minute, slowdown two minutes a round.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
from bench_common import FAMILY, NETWORK, shown, spread
from bench_overhead_fill import fill
from optuna.storages._rdb.models import StudySystemAttributeModel
from optuna_dashboard._note import note_ver_key, split_body
from playwright.sync_api import Browser, Page, sync_playwright
from sqlalchemy import insert
from sqlalchemy.orm import Session

from hpsearch import StudySpec
from hpsearch.engine.artifacts import ArtifactFiles
from hpsearch.engine.database import create_storage
from hpsearch.engine.estimate import Pace
from hpsearch.engine.place import Place
from hpsearch.engine.setup import prepare_data
from hpsearch.engine.storage import SearchStorage
from hpsearch.engine.studies import create_studies
from hpsearch.training.epoch import EpochResult

PARTS = ("page", "slowdown")
EPOCHS = 20
TIMEOUT = 180_000  # milliseconds
DRAWN = """count => {
    const plot = document.querySelector('.js-plotly-plot');
    return plot && plot.data && plot.data.some(line => line.x && line.x.length >= count)
        && document.querySelector('.scatterlayer .point');
}"""
SEARCHER = """
import json, sys, time
from hpsearch import StudySpec, search
from hpsearch.engine.events import TrialStarted
asked = json.loads(sys.stdin.readline())
began = 0.0
def watch(event):
    global began
    if isinstance(event, TrialStarted) and not began:
        began = time.perf_counter()
        print("began", flush=True)
families = tuple(asked["spec"].pop("families"))
spec = StudySpec(families=families, pruner="none", precision="fp32", **asked["spec"])
search(spec, runs=asked["runs"], device="cpu", workers=0, watch=watch)
print(time.perf_counter() - began, flush=True)
"""


def full_study(place: Place, trials: int) -> None:
    """A search with so many finished trials, each with a note and its history as an artifact."""
    spec = StudySpec(name="full", families=(FAMILY,), trials=10**6, epochs=EPOCHS, precision="fp32")
    data, paces = prepare_data(spec, None, place), {FAMILY: Pace(precision="fp32")}
    storage = create_storage(place)
    study = create_studies(spec, data, storage, place=place, paces=paces, threads=1)[FAMILY]
    with storage.engine.begin() as connection:  # what waits to be tried first has been
        connection.exec_driver_sql("UPDATE trials SET state = 'FAIL'")
    fill(storage, study, spec, data, place, trials)
    add_notes_and_files(storage, study, place)


def add_notes_and_files(storage: SearchStorage, study: optuna.Study, place: Place) -> None:
    """Optuna's own function would read all notes for each note."""
    files = ArtifactFiles(place.artifacts)
    names = [field.name for field in dataclasses.fields(EpochResult)]
    columns = [name for name in names if name != "batch_losses"]
    rows = "".join(f"{e}{',0.123' * (len(columns) - 1)}\n" for e in range(EPOCHS))
    history = f"{','.join(columns)}\n{rows}".encode()
    notes = []
    for trial in study.get_trials(deepcopy=False):
        for key in trial.system_attrs:
            if key.startswith("artifacts:"):
                files.write(key.partition(":")[2], io.BytesIO(history))
        values = "".join(f"- {name}: {value}\n" for name, value in trial.params.items())
        body = f"### {FAMILY}-{trial.number}\n\n{values}\nPruned after epoch 4.\n" + "x " * 200
        pieces: dict[str, Any] = {note_ver_key(trial._trial_id): 1}
        pieces |= split_body(body, trial._trial_id)
        notes += [
            {"study_id": study._study_id, "key": key, "value_json": json.dumps(value)}
            for key, value in pieces.items()
        ]
    with Session(storage.engine) as session, session.begin():
        session.execute(insert(StudySystemAttributeModel), notes)


@contextlib.contextmanager
def served(command: list[str]) -> Iterator[str]:
    """The address of a dashboard that a command starts on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(  # noqa: S603
        [*command, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 60
    try:
        while True:
            if process.poll() is not None:
                raise SystemExit(f"{command[0]} ended with {process.returncode}")
            try:
                urllib.request.urlopen(f"{address}/favicon.ico", timeout=10).close()  # noqa: S310
                break
            except OSError as error:  # not there yet; or it answers with an error
                if time.monotonic() > deadline:
                    raise SystemExit(f"{command[0]} does not serve {address}: {error}") from None
            time.sleep(0.1)
        yield address
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def plain(place: Place) -> list[str]:
    program = str(Path(sys.executable).with_name("optuna-dashboard"))
    storage = f"sqlite:///{place.database.resolve()}"
    return [program, storage, "--artifact-dir", str(place.artifacts)]


def ours(place: Place) -> list[str]:
    program = str(Path(sys.executable).with_name("hpsearch"))
    return [program, "dashboard", "--runs", str(place.runs), "--no-browser"]


@contextlib.contextmanager
def fresh_page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    try:
        page = context.new_page()
        page.set_default_timeout(TIMEOUT)
        yield page
    finally:
        context.close()


def first_page(browser: Browser, address: str, trials: int) -> float:
    """Seconds until the page of the study is there."""
    with fresh_page(browser) as page:
        start = time.perf_counter()
        page.goto(f"{address}/dashboard/studies/1", wait_until="commit")
        page.wait_for_function(DRAWN, arg=trials // 2, polling=20)  # a third was pruned
        return time.perf_counter() - start


def page(place: Place, browser: Browser, rounds: int, trials: int) -> dict[str, Any]:
    commands: dict[str, Callable[[Place], list[str]]] = {"plain": plain, "hpsearch": ours}
    found: dict[str, list[float]] = {name: [] for name in commands}
    with contextlib.ExitStack() as stack:
        addresses = {
            name: stack.enter_context(served(command(place))) for name, command in commands.items()
        }
        for _ in range(rounds + 1):
            for name, address in addresses.items():
                found[name].append(first_page(browser, address, trials))
    print(f"\npage: seconds until a study with {trials:,} trials is drawn, first visit and later")
    rows = {name: {"first": took[0], **spread(took[1:])} for name, took in found.items()}
    for name, row in rows.items():
        print(f"{name:12}{row['first']:8.2f}   {shown(row, '{:.2f}')}")
    return rows


def searched(place: Place, spec: dict[str, Any], look: Callable[[], None]) -> float:
    """Seconds that a search takes from its first trial on.

    Args:
        look: called when that begins.
    """
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", SEARCHER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    if process.stdin is None or process.stdout is None:
        raise SystemExit("no pipes")
    process.stdin.write(json.dumps({"spec": spec, "runs": str(place.runs)}) + "\n")
    process.stdin.flush()
    if process.stdout.readline() != "began\n":
        raise SystemExit("the search did not begin")
    look()
    seconds = float(process.stdout.readline())
    process.wait(60)
    return seconds


def slowdown(place: Place, browser: Browser, rounds: int, seconds: float) -> dict[str, Any]:
    """The search and the page are of a study of their own, beside the full one."""
    spec: dict[str, Any] = {"families": [FAMILY], "overrides": NETWORK, "epochs": 5, "trials": 2}

    def run(name: str, look: Callable[[], None] = lambda: None) -> float:
        return searched(place, {**spec, "name": name}, look)

    spec["trials"] = max(4, round(seconds / run("pace") * spec["trials"]))
    found: dict[str, list[float]] = {"alone": [], "watched": []}
    with served(ours(place)) as address, fresh_page(browser) as window:

        def look(name: str) -> None:
            window.goto(f"{address}/dashboard")
            window.get_by_text(f"{name}/{FAMILY}").click()

        for number in range(rounds):
            for arm in sorted(found, reverse=bool(number % 2)):
                name = f"{arm}-{number}"
                window.goto("about:blank")
                found[arm].append(
                    run(name, (lambda n=name: look(n)) if arm == "watched" else lambda: None)
                )
    ratios = [w / a for w, a in zip(found["watched"], found["alone"], strict=True)]
    rows = {**{arm: spread(took) for arm, took in found.items()}, "ratio": spread(ratios)}
    print(f"\nslowdown: a search of {spec['trials']} trials on one thread, in seconds")
    for arm in found:
        print(f"{arm:12}{shown(rows[arm], '{:.1f}')}")
    print(f"{'ratio':12}{shown(rows['ratio'], '{:.3f}')}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures the dashboard.")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=40, help="of a search in slowdown")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        raise SystemExit("no Chromium (Debian: chromium)")
    os.environ.pop("HPSEARCH_STORAGE", None)  # the dashboard is to show what is made here
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="bench-dashboard-") as folder, sync_playwright() as api:
        place = Place.of(Path(folder) / "runs")
        full_study(place, options.trials)
        browser = api.chromium.launch(executable_path=program, args=["--no-sandbox"])
        if "page" in options.part:
            found["page"] = page(place, browser, options.rounds, options.trials)
        if "slowdown" in options.part:
            found["slowdown"] = slowdown(place, browser, options.rounds, options.seconds)
        browser.close()
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
