"""`hpsearch status`: what people see of a search that runs elsewhere."""

from __future__ import annotations

import dataclasses
import datetime
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from hpsearch import StudySpec, search
from hpsearch.cli.main import main
from hpsearch.cli.status_view import advice, changed_line, framed_status, status_lines
from hpsearch.engine.database import create_storage
from hpsearch.engine.place import Place
from hpsearch.engine.status import RunningTrial, SearchStatus
from hpsearch.engine.status_reader import search_status
from hpsearch.training.gpu import GpuLoad

Run = Callable[[str], tuple[int, str, str]]
NOW = datetime.datetime(2026, 3, 1, 14, 30)
LOAD = GpuLoad(device="cuda:0", name="Card", busy=0.5, used=2**30, total=2**33)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with two searches that are over; the tests leave them as they are."""
    runs = tmp_path_factory.mktemp("runs")
    for name in ("first", "second"):
        search(
            StudySpec(
                name=name, families=("logistic", "mlp"), trials=2, epochs=2, artifacts="none"
            ),
            runs=runs,
        )
    return runs


@pytest.fixture(scope="module")
def over(runs: Path) -> SearchStatus:
    return search_status(runs, "second")


def running(status: SearchStatus, number: int, **values: Any) -> RunningTrial:
    """A trial such as the best one, that runs."""
    best = status.standing.best
    assert best is not None
    trial = dataclasses.replace(
        best,
        number=number,
        state="running",
        **{
            "host": "node1",
            "device": "cpu (2 threads)",
            "reported": {epoch: 0.1 * epoch for epoch in range(number % 7)},
            **{key: values.pop(key) for key in ("host", "device", "reported") if key in values},
        },
    )
    row = RunningTrial(trial=trial, epochs=60, seconds=12.0, silent=3.0, gpu=None)
    return dataclasses.replace(row, **values)


def at_work(status: SearchStatus, *rows: RunningTrial, **values: Any) -> SearchStatus:
    return dataclasses.replace(
        status, **{"state": "running", "seconds_left": 7200.0, "running": rows, **values}
    )


def screen(status: SearchStatus, width: int = 100, height: int = 40, **given: Any) -> str:
    console = Console(file=io.StringIO(), width=width, height=height)
    options: dict[str, Any] = {"is_open": True, "away": False, **given}
    with console.capture() as capture:
        console.print(framed_status(console, status, NOW, **options))
    return capture.get()


class TestCommand:
    def test_one_search(self, run: Run, runs: Path) -> None:
        code, out, err = run(f"status first --runs {runs}")
        assert (code, err) == (0, "")
        lines = out.splitlines()
        assert lines[0] == "search first: over, 2/2 trials (2 complete), 0 running"
        assert lines[1].startswith("digits: 8x8x1, 10 classes")
        assert re.match(r"logistic: 1 complete, 0 pruned, 0 failed, best logistic-0 \d", lines[2])
        assert lines[-1] == f"to export the best: hpsearch export first --runs {runs}"

    def test_without_a_name_all_are_listed_and_the_last_one_is_shown(
        self, run: Run, runs: Path
    ) -> None:
        _, out, _ = run(f"status --runs {runs}")
        assert re.search(r"second +digits +20\d\d-.* 2/2 +0 +\d+\.\d\d %", out)
        assert re.search(r"first +digits +20\d\d-.* 2/2 +0 +\d+\.\d\d %", out)
        assert "\nsearch second: over" in out

    def test_for_machines(self, run: Run, runs: Path) -> None:
        code, out, _ = run(f"status first --json --runs {runs}")
        document = json.loads(out)
        assert code == 0
        assert [row["search"] for row in document["searches"]] == ["second", "first"]
        assert document["status"]["search"] == "first"
        assert set(document["status"]) == {
            *("search", "state", "reason", "data", "objective", "last_started", "trials"),
            *("families", "best", "running", "interrupted", "paused", "seconds_left"),
        }

    @pytest.mark.parametrize(
        ("command", "parts"),
        [
            ("status firs", ["'firs'", "second, first", "did you mean 'first'"]),
            ("status --watch --json", ["--watch", "--json"]),
            ("status --runs nowhere", ["no searches in nowhere", "hpsearch search"]),
            ("status --storage mysql://me:s3cret@host/db", ["postgresql://"]),
        ],
    )
    def test_what_is_wrong_is_told_in_a_line(
        self, run: Run, runs: Path, command: str, parts: list[str]
    ) -> None:
        code, out, err = run(command if "--runs" in command else f"{command} --runs {runs}")
        assert (code, out) == (2, "")
        assert len(err.splitlines()) == 1
        assert all(part in err for part in parts)
        assert "s3cret" not in err

    def test_watching_ends_with_the_search(self, run: Run, runs: Path) -> None:
        code, out, err = run(f"status first --watch --runs {runs}")
        assert (code, err) == (0, "")
        assert re.match(r"\[2/2\] over  best \w+-0 \d+\.\d\d %\n", out)


class TestFrame:
    @pytest.mark.parametrize(
        ("width", "height"), [(40, 10), (60, 12), (80, 24), (100, 24), (200, 60)]
    )
    @pytest.mark.parametrize("count", [0, 1, 2, 16])
    def test_it_fits_every_terminal(
        self, over: SearchStatus, width: int, height: int, count: int
    ) -> None:
        rows = [
            running(over, number, gpu=LOAD, host=f"node{number}", silent=9.0 * number)
            for number in range(count)
        ]
        idle = tuple(dataclasses.replace(row.trial, state="interrupted") for row in rows)
        status = at_work(over, *rows, idle=idle)
        lines = screen(status, width, height, away=True).split("\n")[:-1]
        assert len(lines) <= height
        assert {len(line) for line in lines[:-1]} == {width}
        text = "\n".join(lines)
        assert f"{count} running" in text
        assert "the database does not answer" in text
        if count:
            assert re.search(r"running +\S+-0 +(epoch )?0/60", text)
        whole = screen(status, width, height, is_open=False)
        assert len(re.findall(r"\b0/60|[1-6]/60", whole)) == count

    def test_who_is_silent_and_where_trials_run(self, over: SearchStatus) -> None:
        status = at_work(
            over,
            running(over, 5, silent=45.4),
            running(over, 6, host="node2", device="cuda:1, NVIDIA H100", gpu=LOAD),
        )
        text = screen(status, 160)
        assert re.search(r"-5 .*node1 cpu .* silent for 45 s", text)
        assert re.search(r"-6 .*node2 cuda:1 (?!.*silent)", text)
        assert "GPU      node2 cuda:0, Card: 50 % busy, 1.0 of 8.0 GiB taken" in text
        assert "about 2 h 00 min left, ends about 16:30" in text
        # Three trials on two GPUs, one of which two share.
        cards = [LOAD, LOAD, dataclasses.replace(LOAD, device="cuda:1")]
        on_gpus = at_work(over, *(running(over, n, gpu=card) for n, card in enumerate(cards)))
        plain = "\n".join(status_lines(on_gpus, NOW))
        assert re.findall(r"^.*(cuda:\d), Card:", plain, re.MULTILINE) == ["cuda:0", "cuda:1"]
        assert plain.count("\nGPU: node1 cuda:") == 2
        assert len(re.findall(r"\bGPU +node1\b", screen(on_gpus, 160))) == 2
        alike = screen(at_work(over, running(over, 5), running(over, 6)), 160)
        assert "node1, cpu (2 threads)" in alike.split("\n")[1]
        assert alike.count("node1") == 1

    def test_what_can_be_done_next(self, over: SearchStatus) -> None:
        idle = dataclasses.replace(running(over, 5).trial, state="interrupted")
        paused = dataclasses.replace(running(over, 6).trial, state="paused")
        stopped = dataclasses.replace(over, state="stopped", idle=(idle, paused))
        assert advice(stopped) == [
            f"to go on with it:   hpsearch worker second --runs {over.place.runs}, or the search's "
            "own command again"
        ]
        text = screen(stopped)
        assert "search second: nobody runs it" in text
        assert re.search(r"left +1 interrupted: \w+-5", text)
        assert re.search(r"left +1 paused: \w+-6", text)
        assert re.search(r"next +to go on with it: +hpsearch worker second", text)
        assert "next" not in screen(stopped, is_open=False)  # there it stands below the frame
        place = Place.of(over.place.runs, "postgresql://me:s3cret@host/db")
        (line,) = advice(dataclasses.replace(stopped, place=place))
        assert "me:***@host" in line
        gave_up = dataclasses.replace(over, reason="all combinations of the grid have been tried")
        assert "all combinations of the grid" in screen(gave_up)
        assert advice(at_work(over)) == []

    @given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30))
    def test_names_from_outside_are_shown_as_they_are(
        self, over: SearchStatus, host: str, device: str, name: str
    ) -> None:
        trial = running(over, 5, host=host, device=device)
        other = running(over, 6, host="[red]x[/red]", silent=50.0)
        odd = dataclasses.replace(
            over, data={**over.data, "name": name}, name="[bold]second\x1b[31m"
        )
        text = screen(at_work(odd, trial, other), 400)
        assert text.isprintable() or set(filter(lambda c: not c.isprintable(), text)) == {"\n"}
        assert "[red]x[/red]" in text
        assert "[bold]second\\x1b[31m" in text
        for line in status_lines(at_work(odd, trial, other), NOW):
            assert isinstance(line, str)

    def test_values_that_are_not_numbers_do_no_harm(self, over: SearchStatus) -> None:
        reported = {0: float("nan"), 1: float("inf"), 2: 0.5}
        status = at_work(over, running(over, 5, reported=reported))
        assert "epoch 3/60" in screen(status)
        document = json.dumps(status.to_dict(), allow_nan=False)
        assert json.loads(document)["running"][0]["values"] == [None, None, 0.5]

    def test_lines_where_there_is_no_terminal(self, over: SearchStatus) -> None:
        status = at_work(over, running(over, 5, silent=45.0))
        lines = list(status_lines(status, NOW))
        assert lines[0] == (
            "search second: running, 2/2 trials (2 complete), 1 running, about 2 h 00 min left, "
            "ends about 16:30"
        )
        (line,) = (line for line in lines if line.startswith("running: "))
        assert re.match(
            r"running: \w+-5 epoch 5/60 validation 40.00 %  \d+\.\d\d points behind", line
        )
        assert line.endswith("  node1, cpu (2 threads)  12.0 s  silent for 45 s")
        assert re.match(
            r"\[2/2\] running: \w+-5 epoch 5/60 .*  about 2 h 00 min left, ends about 16:30$",
            changed_line(status, NOW),
        )


def hpsearch(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", "from hpsearch.cli.main import main; main()", *arguments],
        stderr=subprocess.STDOUT,
        **options,
    )


def test_ctrl_c_is_the_way_to_leave(tmp_path: Path) -> None:
    """On a terminal: the frame is drawn, Ctrl-C ends it, and the cursor is there again."""
    search(
        StudySpec(name="left", families=("logistic",), trials=1, epochs=1, artifacts="none"),
        runs=tmp_path,
    )
    # As if more were wanted, and nobody did it.
    study = optuna.load_study(study_name="left/logistic", storage=create_storage(Place(tmp_path)))
    study.set_user_attr("spec", {**study.user_attrs["spec"], "trials": 3})
    terminal, theirs = pty.openpty()
    process = hpsearch(
        *("status", "--watch", "--runs", str(tmp_path)),
        stdin=theirs,
        stdout=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24", "NO_COLOR": "1"},
    )
    os.close(theirs)
    shown, deadline = b"", time.monotonic() + 60
    asked = False
    while process.poll() is None or select.select([terminal], [], [], 0)[0]:
        assert time.monotonic() < deadline, shown
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                shown += os.read(terminal, 65536)
            except OSError:  # it is gone
                break
        if not asked and "╰".encode() in shown:
            process.send_signal(signal.SIGINT)
            asked = True
    text = shown.decode()
    os.close(terminal)
    assert process.wait(30) == 0, text
    assert "search left" in text
    assert "1/3 trials" in text
    assert "Traceback" not in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", text)  # NO_COLOR


def test_an_export_before_the_end_says_what_it_is(run: Run) -> None:
    search(
        StudySpec(name="left", families=("logistic",), trials=1, epochs=1, artifacts="none"),
        runs="runs",
    )
    assert "trials so far" not in run("export left -o whole")[2]
    study = optuna.load_study(study_name="left/logistic", storage=create_storage(Place.of("runs")))
    study.set_user_attr("spec", {**study.user_attrs["spec"], "trials": 3})
    code, _, err = run("export left -o early")
    assert code == 0
    assert "note: search left has 1 of its 3 trials so far" in err


def test_watching_waits_for_the_first_search(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    process = hpsearch("status", "--watch", "--runs", str(runs), stdout=subprocess.PIPE)
    assert process.stdout is not None
    waiting = process.stdout.readline().decode()
    assert waiting == f"no searches in {runs} yet; waiting for one, until Ctrl-C\n"
    search(StudySpec(families=("logistic",), trials=1, epochs=1, artifacts="none"), runs=runs)
    rest = process.stdout.read().decode()
    assert process.wait(30) == 0, rest
    assert "[1/1] over" in rest


def test_where_only_ascii_can_be_written(
    runs: Path, monkeypatch: pytest.MonkeyPatch, over: SearchStatus
) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    odd = dataclasses.replace(over, name="größte")
    monkeypatch.setattr("hpsearch.engine.status_reader.StatusReader.read", lambda _: odd)
    with pytest.raises(SystemExit) as caught:
        main(["status", "first", "--runs", str(runs)])
    assert caught.value.code == 0
    out.flush()
    assert b"search gr??te: over" in out.buffer.getvalue()  # type: ignore[attr-defined]
