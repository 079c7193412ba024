"""What --storage, --devices, --workers and --timeout come to, and `hpsearch worker`."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from hpsearch import load_search
from hpsearch.cli.ending import print_end
from hpsearch.cli.options import seconds_of
from hpsearch.engine import search as engine
from hpsearch.engine.events import Stopping
from hpsearch.engine.place import Place
from hpsearch.engine.records import SearchRecord, TrialRecord
from hpsearch.errors import SearchError

Run = Callable[[str], tuple[int, str, str]]
URL = "postgresql://me:s3cret@host/db"


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> SearchRecord:
    """A search of one short trial."""
    from hpsearch import StudySpec

    runs = tmp_path_factory.mktemp("runs")
    engine.search(StudySpec(families=("logistic",), trials=1, epochs=1), runs=runs)
    return load_search(runs)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, record: SearchRecord) -> list[dict[str, Any]]:
    """What `search` and `join` are called with; they do nothing."""
    calls: list[dict[str, Any]] = []

    def called(first: object, **given: Any) -> SearchRecord:
        given.pop("watch")
        calls.append({"first": first, **given})
        return record

    monkeypatch.setattr(engine, "search", called)
    monkeypatch.setattr(engine, "join", called)
    monkeypatch.delenv("HPSEARCH_STORAGE", raising=False)
    return calls


DEFAULTS = {
    "runs": Path("runs"),
    "storage": None,
    "device": "auto",
    "devices": (),
    "workers": None,
    "timeout": None,
}


@pytest.mark.parametrize(
    ("options", "given"),
    [
        ("", {}),
        ("--workers 0", {"workers": 0}),
        ("--workers 3 --device cpu", {"workers": 3, "device": "cpu"}),
        ("--devices 'cuda:0, cuda:1'", {"devices": ("cuda:0", "cuda:1")}),
        ("--timeout 1.5h", {"timeout": 5400.0}),
        (f"--storage {URL} --runs shared", {"storage": URL, "runs": Path("shared")}),
    ],
)
def test_options_reach_the_engine(
    run: Run, calls: list[dict[str, Any]], options: str, given: dict[str, Any]
) -> None:
    assert run(f"search --family logistic {options}")[0] == 0
    assert run(f"worker digits {options}")[0] == 0
    assert run(f"worker digits --data elsewhere.h5 {options}")[0] == 0
    assert calls[0].pop("first").families == ("logistic",)
    expected = DEFAULTS | given
    assert calls == [
        expected,
        {"first": "digits", "data": None, **expected},
        {"first": "digits", "data": "elsewhere.h5", **expected},
    ]


@pytest.mark.parametrize("command", ["search", "worker digits"])
def test_the_storage_comes_from_the_environment(
    run: Run, calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("HPSEARCH_STORAGE", URL)
    assert run(command)[0] == 0
    assert calls[-1]["storage"] == URL
    assert run(f"{command} --storage postgresql://other/db")[0] == 0
    assert calls[-1]["storage"] == "postgresql://other/db"
    assert "s3cret" not in run(f"{command} --help")[1]
    monkeypatch.setenv("HPSEARCH_STORAGE", "")
    assert run(command)[0] == 0
    assert calls[-1]["storage"] is None


@pytest.mark.parametrize("command", ["search", "search --dry-run", "worker digits"])
@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ("--timeout soon", ["--timeout", "'soon'", "30m"]),
        ("--timeout 0", ["--timeout", "'0'"]),
        ("--device cpu --devices cuda:0", ["--device cpu", "--devices cuda:0", "give one"]),
        ("--devices cuda:0,", ["'cuda:0,'", "cuda:0,cuda:1"]),
        ("--workers -1", ["--workers", "-1"]),
    ],
)
def test_wrong_ones_are_refused(
    run: Run, calls: list[dict[str, Any]], command: str, options: str, parts: list[str]
) -> None:
    code, _, err = run(f"{command} {options}")
    assert code == 2
    assert all(part in err for part in parts)
    assert not calls


def test_a_worker_of_a_search_that_there_is_not(run: Run, tmp_path: Path) -> None:
    code, _, err = run("worker nothing")
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_worker_of_a_search_with_another_name(run: Run, record: SearchRecord) -> None:
    code, _, err = run(f"worker digitz --runs {record.place.runs}")
    assert code == 2
    assert "there are digits; did you mean 'digits'?" in err


def test_a_trial_is_known_by_its_name_or_as_the_best(record: SearchRecord) -> None:
    assert record.trial("best") is record.best
    with pytest.raises(SearchError, match=r"has no trial 'mlp-9'; there are logistic-0$"):
        record.trial("mlp-9")


def test_a_worker_says_how_it_ended(
    run: Run, monkeypatch: pytest.MonkeyPatch, record: SearchRecord
) -> None:
    more = dataclasses.replace(record, spec={**record.spec, "trials": 2})
    none = dataclasses.replace(more, trials=(dataclasses.replace(record.best, state="failed"),))

    def join(name: str, *, watch: Callable[..., None], **_: Any) -> SearchRecord:
        if name != "digits":
            watch(Stopping(reason="after 2 s"))
        return {"digits": record, "late": record, "stopped": more, "failed": none}[name]

    monkeypatch.setattr(engine, "join", join)
    done = "search digits has 1 finished trial (1 asked for)"
    adding = f"{done}. To add some: the search's own command with --trials 2\n"
    for name in ("digits", "late"):  # the wish to stop came when all was done
        code, out, _ = run(f"worker {name}")
        assert code == 0
        assert adding in out
        assert "hpsearch export digits" in out
    left = "search digits has 1 finished trial (2 asked for)"
    stopped = f"{left}. It was stopped (after 2 s); the search's own command goes on\n"
    assert stopped in run("worker stopped")[1]
    code, out, _ = run("worker failed")
    assert code == 1
    assert "hpsearch export" not in out


def aside(trial: TrialRecord, *states: str) -> tuple[TrialRecord, ...]:
    """The trial, and more in these states."""
    more = (dataclasses.replace(trial, number=n, state=s) for n, s in enumerate(states, 1))
    return (trial, *more)


@pytest.mark.parametrize(
    ("states", "stopped", "end"),
    [
        (["infeasible"] * 20, "", "So many configurations were infeasible that it gave up: narrow"),
        (["infeasible"] * 20, "Ctrl-C", "So many configurations were infeasible"),
        (
            ["infeasible"] * 4 + ["duplicate"] * 16,
            "",
            "What was drawn had been measured so often that it gave up: widen",
        ),
        (["infeasible"] * 19, "after 2 h", "It was stopped (after 2 h); the same command goes on"),
        (["infeasible"] * 19, "", "To go on: the same command"),
    ],
)
def test_why_a_search_ended_early(
    record: SearchRecord,
    capsys: pytest.CaptureFixture[str],
    states: list[str],
    stopped: str,
    end: str,
) -> None:
    asked = {**record.spec, "trials": 2}
    trials = aside(record.best, *states)
    print_end(
        Console(width=200),
        dataclasses.replace(record, spec=asked, trials=trials),
        stopped=stopped,
    )
    out = capsys.readouterr().out
    assert "has 1 finished trial (2 asked for). " in out
    assert end in out


@pytest.mark.parametrize("stopped", ["", "the time is up"])
def test_a_search_that_stagnates_says_so_whatever_else_stopped_it(
    record: SearchRecord, capsys: pytest.CaptureFixture[str], stopped: str
) -> None:
    noon = datetime.datetime(2026, 11, 21, 12)
    (best,) = record.trials
    trials = [
        dataclasses.replace(best, number=n, ended=noon + datetime.timedelta(hours=n), state=state)
        for n, state in enumerate(("pruned", "complete", "complete", "failed"))
    ]
    # In the order of their ends, whatever their numbers: the first complete one is the best.
    for patience, end in ((2, "The last 2 trials made the best no better (--patience)"), (3, "")):
        spec = {**record.spec, "trials": 9, "patience": patience}
        print_end(
            Console(width=200),
            dataclasses.replace(record, spec=spec, trials=tuple(trials[::-1])),
            stopped=stopped,
        )
        out = capsys.readouterr().out
        assert ("(--patience)" in out) == bool(end)
        assert end in out


def test_commands_to_go_on_with_find_the_storage_and_show_no_password(
    record: SearchRecord, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HPSEARCH_STORAGE", raising=False)
    elsewhere = dataclasses.replace(record, place=Place(Path("my runs"), URL))
    print_end(Console(width=200), elsewhere)
    options = (
        "--runs 'my runs' --storage 'postgresql://me:***@host/db'  (*** stands for the password)\n"
    )
    assert f"hpsearch export digits {options}" in (out := capsys.readouterr().out)
    assert f"hpsearch dashboard {options}" in out
    monkeypatch.setenv("HPSEARCH_STORAGE", URL)
    print_end(Console(width=200), elsewhere)
    assert "hpsearch export digits --runs 'my runs'\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("30m", 1800), ("2h", 7200), ("1d", 86400), (" 0.5 m ", 30)],
)
def test_times(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0.0h", "-5", "1e3", "inf", "nan", "2w", "9" * 400])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(SearchError, match="--timeout takes a time"):
        seconds_of(text)


@given(st.text())
def test_any_text_is_a_time_or_refused(text: str) -> None:
    with contextlib.suppress(SearchError):
        assert seconds_of(text) > 0
