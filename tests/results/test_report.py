"""The report of records made by hand: what it counts and names, and how it is printed."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from hpsearch import SearchRecord, StudySpec, TrialRecord
from hpsearch.cli.report import print_report
from hpsearch.engine import ledger
from hpsearch.engine.place import Place
from hpsearch.results.reports.cells import of_test, varied_text
from hpsearch.results.reports.document import report_document, search_document, trials_csv
from hpsearch.training.costs import COSTS
from hpsearch.training.epoch import EpochResult
from hpsearch.training.goals import objective_rows
from hpsearch.training.history import write_history
from hpsearch.training.objectives import OBJECTIVES
from hpsearch.training.units import UNITS, objective_value, scaled


def trial(
    number: int,
    *values: float,
    state: str = "complete",
    family: str = "cnn",
    val_loss: float | None = None,
    **more: Any,
) -> TrialRecord:
    value = values[0] if values else None
    given: dict[str, Any] = {
        "place": Place(Path("runs")),
        "search": "digits",
        "family": family,
        "number": number,
        "state": state,
        "chosen_by": "random",
        "params": {"lr": 0.1},
        "config": None,
        "objective": "val_accuracy",
        "value": value,
        "values": values if len(values) > 1 else (),
        "val_accuracy": value,
        "val_balanced_accuracy": value,
        "val_macro_f1": value,
        "val_loss": val_loss if val_loss is not None or value is None else 1 - value,
        "best_epoch": 0 if values else None,
        "epochs": 1,
        "seconds": 1.0,
        "parameters": 7,
        "failure": "",
        "note": "",
        "folder": Path("runs"),
    }
    return TrialRecord(**{**given, **more})


def record_of(*trials: TrialRecord, objective: str = "val_accuracy") -> SearchRecord:
    return SearchRecord(
        place=Place(Path("runs")),
        name="digits",
        families=("cnn", "mlp"),
        spec=StudySpec(objective=objective, families=("cnn", "mlp")).to_dict(),
        data={"name": "digits", "counts": {"train": 3, "val": 2, "test": 1}},
        fingerprints={"data": "d", "split": "s"},
        trials=trials,
        openings=(),
    )


def printed(record: SearchRecord, capsys: pytest.CaptureFixture[str]) -> str:
    print_report(Console(width=120), report_document(record))
    return capsys.readouterr().out


SEVERAL = "val_accuracy,params,macs,latency"
FRONT = (
    trial(0, 0.9, 5_000.0, 1.2e6, 1.5),
    trial(1, 0.95, 1_234_567.0, 3.4e9, 12.3),
    trial(0, 0.9, 5_000.0, 1.2e6, 1.5, family="mlp"),  # level with the first
    trial(1, 0.89, 5_000.0, 1.2e6, 1.5, family="mlp"),  # dominated by it
    trial(2, 0.99, 1.0, 1.0, 0.1, state="pruned"),
    trial(3, 0.99, state="running"),
    trial(4),
    trial(5, 0.99, 1.0, float("nan"), 0.1),
    trial(6, 0.5, 4_999.0, 999.0, 150.0),
)


class TestSeveralObjectives:
    def test_the_record_knows_its_front(self) -> None:
        record = record_of(*FRONT, objective=SEVERAL)
        assert record.objectives == objective_rows(SEVERAL)
        assert record.objective is record.objectives[0]
        assert [t.name for t in record.pareto()] == ["cnn-1", "cnn-0", "mlp-0", "cnn-6"]
        # Trials are ranked by the first objective alone.
        assert record.best.name == "cnn-5"
        assert [t.name for t in record.ranked()][:2] == ["cnn-5", "cnn-1"]

    def test_the_front_begins_with_the_best_by_the_first_objective(self) -> None:
        trials = [
            trial(0, 0.2, 9.0),
            trial(1, 0.1, 8.0),
            trial(2, 0.2, 9.0, val_loss=0.1),  # level, with the lower loss
        ]
        record = record_of(*trials, objective="val_accuracy,params")
        assert [t.number for t in record.pareto()] == [2, 0, 1]

    def test_one_that_is_minimised(self) -> None:
        given = [(0.5, 10.0), (0.4, 20.0), (0.4, 19.0), (0.6, 10.0)]
        trials = [
            trial(number, *values, objective="val_loss", val_loss=values[0])
            for number, values in enumerate(given)
        ]
        record = record_of(*trials, objective="val_loss,params")
        assert [t.number for t in record.pareto()] == [2, 0]

    def test_of_one_objective_it_is_the_best(self) -> None:
        record = record_of(trial(0, 0.5), trial(1, 0.7), trial(2, 0.7, val_loss=9.0))
        assert record.objectives == (OBJECTIVES[0],)
        assert [t.number for t in record.pareto()] == [1, 2]
        assert record_of(trial(0)).pareto() == []

    def test_the_document_has_the_front(self) -> None:
        document = search_document(record_of(*FRONT, objective=SEVERAL), best=1)
        assert document["objective"] == SEVERAL
        assert [row["name"] for row in document["objectives"]] == SEVERAL.split(",")
        assert document["objectives"][1] == {
            "name": "params",
            "label": "parameters",
            "direction": "minimize",
            "unit": "parameters",
        }
        assert [row["trial"] for row in document["pareto"]] == ["cnn-1", "cnn-0", "mlp-0", "cnn-6"]
        assert document["pareto"][0]["values"] == {
            "val_accuracy": 0.95,
            "params": 1_234_567.0,
            "macs": 3.4e9,
            "latency": 12.3,
        }
        assert len(document["best_trials"]) == 1
        assert [row["family"] for row in document["leaderboard"]] == ["cnn", "mlp"]
        without_nan = search_document(record_of(*FRONT[:5], objective=SEVERAL))
        assert json.loads(json.dumps(without_nan)) == without_nan

    def test_people_see_a_table(self, capsys: pytest.CaptureFixture[str]) -> None:
        shown = printed(record_of(*FRONT, objective=SEVERAL), capsys)
        _, _, table = shown.partition("Pareto front")
        lines = [" ".join(line.split()) for line in table.splitlines()]
        header = next(number for number, line in enumerate(lines) if line.startswith("trial"))
        assert lines[header] == "trial val. acc. params MACs latency"
        assert [line for line in lines[header + 2 :] if line][:4] == [
            "cnn-1 95.00 % 1,234,567 3.4 G 12.3 ms",
            "cnn-0 90.00 % 5,000 1.2 M 1.5 ms",
            "mlp-0 90.00 % 5,000 1.2 M 1.5 ms",
            "cnn-6 50.00 % 4,999 999 150 ms",
        ]

    def test_with_one_objective_there_is_no_table(self, capsys: pytest.CaptureFixture[str]) -> None:
        record = record_of(trial(0, 0.5), trial(1, 0.7))
        document = search_document(record)
        assert document["pareto"] == []
        assert [row["name"] for row in document["objectives"]] == ["val_accuracy"]
        assert document["best_trials"][0]["values"] == {"val_accuracy": 0.7}
        assert "Pareto" not in printed(record, capsys)


class TestStates:
    TRIALS = (
        trial(0, 0.5),
        trial(1, state="duplicate", failure="as cnn-0", note="a note"),
        trial(2, state="duplicate", failure="as cnn-0"),
        trial(3, state="infeasible", failure="too small", note="a note"),
        trial(4, 0.4, state="interrupted"),
        trial(5, state="paused"),
        trial(6, 0.4, state="paused"),
        trial(7, state="failed", failure="it broke"),
        trial(8, 0.3, state="running"),
        trial(0, state="duplicate", failure="as mlp-9", family="mlp"),
    )

    def test_each_is_counted_where_it_belongs(self) -> None:
        document = search_document(record_of(*self.TRIALS))
        cnn, mlp = sorted(document["leaderboard"], key=lambda row: row["family"])
        counted = {
            "complete": 1,
            "pruned": 0,
            "failed": 1,
            "infeasible": 1,
            "duplicate": 2,
            "running": 1,
            "interrupted": 1,
            "paused": 2,
        }
        assert {state: cnn[state] for state in counted} == counted
        assert {state for state in counted if mlp[state]} == {"duplicate"}
        assert document["trials"]["finished"] == 2
        assert document["failures"] == [{"trial": "cnn-7", "state": "failed", "reason": "it broke"}]
        assert document["notes"] == []
        assert [row["trial"] for row in document["infeasible"]] == ["cnn-3"]
        assert document["duplicates"] == [
            {"trial": "cnn-1", "reason": "as cnn-0"},
            {"trial": "cnn-2", "reason": "as cnn-0"},
            {"trial": "mlp-0", "reason": "as mlp-9"},
        ]
        assert document["interrupted"] == ["cnn-4"]
        assert document["paused"] == ["cnn-5", "cnn-6"]
        assert json.loads(json.dumps(document)) == document

    def test_people_see_a_line_each(self, capsys: pytest.CaptureFixture[str]) -> None:
        lines = printed(record_of(*self.TRIALS), capsys).splitlines()
        for line in (
            "cnn-7 failed: it broke",
            "3 configurations had been measured already and were not measured again",
            "1 interrupted: cnn-4",
            "2 paused: cnn-5, cnn-6",
        ):
            assert lines.count(line) == 1
        assert not any("as cnn-0" in line for line in lines)

    def test_one_is_singular_and_none_is_not_mentioned(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        shown = printed(record_of(*self.TRIALS[:2]), capsys)
        assert "1 configuration had been measured already and was not measured again" in shown
        shown = printed(record_of(*self.TRIALS[:1]), capsys)
        for word in ("measured", "interrupted", "paused", "infeasible"):
            assert word not in shown


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (999.4, "999"),
        (999.5, "1.0 k"),
        (1_249, "1.2 k"),
        (999_949, "999.9 k"),
        (999_950, "1.0 M"),
        (1.2e6, "1.2 M"),
        (3.44e9, "3.4 G"),
        (17_564_000_000, "17.6 G"),
        (5e12, "5.0 T"),
        (1.5e16, "15,000.0 T"),
    ],
)
def test_large_numbers_are_written_short(value: float, text: str) -> None:
    assert scaled(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.01234, "0.0123 ms"),
        (1.267, "1.27 ms"),
        (12.34, "12.3 ms"),
        (99.96, "100 ms"),
        (100, "100 ms"),
        (1234.5, "1,234 ms"),
    ],
)
def test_milliseconds_have_three_digits(value: float, text: str) -> None:
    assert objective_value(COSTS[-1], value) == text


def test_every_cost_has_a_unit_that_is_written_in_its_own_way() -> None:
    for row in COSTS:
        assert row.unit in UNITS
        assert objective_value(row, None) == "–"


def result_of(name: str, accuracy: float, **more: Any) -> ledger.TestResult:
    given = {"when": "2026", "kind": "export", "folder": "out", "details": {}}
    return ledger.TestResult(trial=name, accuracy=accuracy, **{**given, **more})


def opening_of(name: str, when: str, *, search: str) -> ledger.TestOpening:
    return ledger.TestOpening(when=when, trial=name, purpose="export", search=search)


class TestSeveralSearches:
    FIRST = record_of(trial(0, 0.9), trial(0, 0.7, family="mlp"), trial(1, 0.8, state="pruned"))
    SECOND = dataclasses.replace(
        record_of(
            trial(0, 0.8, search="other"), trial(1, search="other", state="failed", family="mlp")
        ),
        name="other",
    )

    def test_the_leaderboard_is_over_all_of_them(self) -> None:
        document = report_document([self.SECOND, self.FIRST])
        rows = [(row["search"], row["family"], row["trial"]) for row in document["leaderboard"]]
        assert rows == [
            ("digits", "cnn", "cnn-0"),
            ("other", "cnn", "cnn-0"),
            ("digits", "mlp", "mlp-0"),
            ("other", "mlp", None),
        ]
        assert document["not_ranked"] == ""
        assert [search["search"] for search in document["searches"]] == ["other", "digits"]
        assert document["leaderboard"][0]["trials"] == 2  # the pruned one counts, too
        assert json.loads(json.dumps(document)) == document

    def test_a_search_that_is_named_twice_is_there_once(self) -> None:
        document = report_document([self.FIRST, self.SECOND, self.FIRST])
        assert [search["search"] for search in document["searches"]] == ["digits", "other"]
        assert report_document(self.FIRST) == report_document([self.FIRST, self.FIRST])

    @pytest.mark.parametrize(
        ("change", "word"),
        [
            ({"fingerprints": {"data": "x", "split": "s"}}, "data"),
            ({"fingerprints": {"data": "d", "split": "x"}}, "splits"),
            ({"spec": StudySpec(objective="val_loss", families=("cnn", "mlp")).to_dict()}, "obj"),
        ],
    )
    def test_what_cannot_be_compared_is_said(
        self, change: dict[str, Any], word: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        trials = (trial(0, 0.95, search="third", val_loss=0.5),)
        third = dataclasses.replace(self.SECOND, name="third", trials=trials, **change)
        document = report_document([self.FIRST, third])
        assert word in document["not_ranked"]
        assert "validation accuracy" in document["not_ranked"]
        # Values of one are losses, of the other accuracies: the accuracy decides.
        assert [row["search"] for row in document["leaderboard"]][:2] == ["third", "digits"]
        print_report(Console(width=120), document)
        assert document["not_ranked"] in capsys.readouterr().out

    def test_people_see_the_leaderboard_first(self, capsys: pytest.CaptureFixture[str]) -> None:
        print_report(Console(width=80), report_document([self.FIRST, self.SECOND]))
        lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
        assert lines[0] == "leaderboard"
        head = "search best trial val. acc. test opened trials time params MACs"
        assert lines.index(head) < lines.index("digits cnn-0 90.00 % – 0 2 2.0 s 7 –")
        assert "other mlp: none – – 0 1 1.0 s – –" in lines
        assert sum("families, best" in line for line in lines) == 2
        print_report(Console(width=80), report_document(self.FIRST))
        assert "leaderboard" not in capsys.readouterr().out


class TestTestScores:
    def test_only_the_very_trial_that_was_exported_has_one(self) -> None:
        record = dataclasses.replace(
            record_of(trial(0, 0.9), trial(1, 0.8), trial(0, 0.7, family="mlp")),
            results=(result_of("cnn-1", 0.99), result_of("mlp-0", 0.5), result_of("mlp-0", 0.6)),
        )
        document = report_document(record)
        assert [row["test"] and row["test"]["accuracy"] for row in document["leaderboard"]] == [
            None,  # the best has none, though a worse one has
            0.6,  # the newest
        ]
        best = document["searches"][0]["best_trials"]
        assert [row["test"] and row["test"]["accuracy"] for row in best] == [None, 0.99, 0.6]

    def test_people_see_it_where_there_is_one(self, capsys: pytest.CaptureFixture[str]) -> None:
        record = record_of(trial(0, 0.9), trial(0, 0.7, family="mlp"))
        assert "test " not in printed(record, capsys).split("families, best")[1].split("best t")[0]
        record = dataclasses.replace(record, results=(result_of("mlp-0", 0.1234),))
        shown = printed(record, capsys)
        assert " test " in shown
        assert "12.34 %" in shown

    @pytest.mark.parametrize(
        ("details", "text", "short"),
        [
            ({}, "90.00 %", "90.00 %"),
            ({"accuracy_95": [0.8, 0.95]}, "90.00 % (80.0 to 95.0)", "90.00 %"),
            (
                {"mean": 0.88, "std": 0.0123, "seeds": 3},
                "88.00 % ± 1.23 (3 seeds)",
                "88.00 % ± 1.23 (3 seeds)",
            ),
            ({"mean": 0.88, "std": None, "seeds": 1}, "88.00 % (1 seed)", "88.00 % (1 seed)"),
            (
                {"new": {"accuracy": 0.7, "accuracy_95": [0.6, 0.8], "images": 64}},
                "70.00 % (60.0 to 80.0) of 64 new",
                "70.00 % of 64 new",
            ),
            ({"new": {"images": 0}}, "90.00 %, all seen", "90.00 %, all seen"),
        ],
    )
    def test_one_model_has_an_interval_and_several_seeds_a_deviation(
        self, details: dict[str, Any], text: str, short: str
    ) -> None:
        record = dataclasses.replace(
            record_of(trial(0, 0.9)), results=(result_of("cnn-0", 0.9, details=details),)
        )
        (row, _) = report_document(record)["leaderboard"]
        assert of_test(row["test"]) == text
        assert of_test(row["test"], short=True) == short
        assert of_test(None) == "–"

    def test_all_looks_are_told_of_and_not_only_the_newest(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        seeds = {"mean": 0.88, "std": 0.0123, "seeds": 3, "accuracy_95": [0.8, 0.95]}
        record = dataclasses.replace(
            record_of(trial(0, 0.9)),
            openings=(
                opening_of("cnn-0", "2026-01-01T10:00", search="digits"),
                opening_of("cnn-0", "2026-01-01T11:00", search="other"),
                opening_of("cnn-0", "2026-01-01T12:00", search="digits"),
            ),
            results=(
                result_of("cnn-0", 0.9, when="2026-01-01T10:01", details={"accuracy_95": [0, 1]}),
                result_of("cnn-0", 0.87, when="2026-01-01T12:09", kind="retrain", details=seeds),
                result_of("mlp-0", 0.5, when="2026-01-01T13:00"),  # of an old version
            ),
        )
        document = search_document(record)
        assert [row["look"] for row in document["test_results"]] == [1, 3, None]
        print_report(Console(width=200), report_document(record))
        lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
        for line in (
            "cnn-0 export 90.00 % (0.0 to 100.0) 1 of 3 2026-01-01 10:01 out",
            "cnn-0 retrain 88.00 % ± 1.23 (3 seeds); kept 87.00 % (80.0 to 95.0) 3 of 3 "
            "2026-01-01 12:09 out",
            "mlp-0 export 50.00 % – 2026-01-01 13:00 out",
        ):
            assert line in lines
        assert "test results" not in printed(record_of(trial(0, 0.9)), capsys)


@pytest.mark.parametrize(
    ("first", "text"),
    [
        ((), "known-good"),
        ([{"lr": 0.1}], "given"),
        ([{"lr": 0.2}], "known-good"),
        ([{"mlp.lr": 0.1}], "known-good"),
        ([{"cnn.lr": 0.1, "mlp.layers": 3}], "given"),
        ([{"widths": [64, 32]}], "given"),
    ],
)
def test_what_the_study_gave_is_not_called_known_good(first: Any, text: str) -> None:
    params = {"lr": 0.1, "widths": "64/32"}
    record = record_of(
        trial(0, 0.9, chosen_by="known-good", params=params), trial(1, 0.8, params=params)
    )
    record = dataclasses.replace(record, spec={**record.spec, "first": first})
    best = search_document(record)["best_trials"]
    assert [row["chosen_by"] for row in best] == [text, "random"]


class TestVaried:
    def test_only_what_differs_is_named_with_what_was_tried(self) -> None:
        rates = [1e-4, 1e-3, 0.3]
        trials = [
            trial(n, 0.5, params={"lr": lr, "layers": n, "optimizer": name, "width": 64})
            for n, (lr, name) in enumerate(zip(rates, ["sgd", "adamw", "sgd"], strict=True))
        ]
        trials.append(trial(9, state="infeasible", params={"lr": 99.0, "width": 1}))
        row, other = report_document(record_of(*trials))["varied"]
        assert row["varied"] == {
            "lr": {"low": 1e-4, "high": 0.3},
            "layers": {"values": [0, 1, 2]},
            "optimizer": {"values": ["adamw", "sgd"]},
        }
        text = varied_text(row["varied"])
        assert text == "lr 0.0001 to 0.3; layers 0, 1, 2; optimizer adamw, sgd"
        assert other["varied"] == {}

    def test_numbers_that_come_again_are_listed(self) -> None:
        trials = [trial(n, 0.5, params={"lr": (0.1, 0.01)[n % 2]}) for n in range(4)]
        (row, _) = report_document(record_of(*trials))["varied"]
        assert row["varied"] == {"lr": {"values": [0.01, 0.1]}}

    def test_losses_are_those_of_the_best_epoch(self, tmp_path: Path) -> None:
        history = [epoch_of(0, 0.4), epoch_of(1, 0.9), epoch_of(2, 0.8)]
        write_history(tmp_path / "history.csv", history)
        best = trial(0, 0.9, best_epoch=1, folder=tmp_path)
        (row, _) = report_document(record_of(best))["varied"]
        assert (row["train_loss"], row["train_accuracy"]) == (0.1, 0.9)
        assert (row["val_loss"], row["val_accuracy"]) == (best.val_loss, 0.9)
        (tmp_path / "history.csv").unlink()
        (row, _) = report_document(record_of(best))["varied"]
        assert (row["train_loss"], row["val_accuracy"]) == (None, 0.9)


def epoch_of(epoch: int, accuracy: float) -> EpochResult:
    scores = ("accuracy", "balanced_accuracy", "macro_f1")
    return EpochResult(
        epoch=epoch,
        train_loss=0.1 * epoch,
        val_loss=1 - accuracy,
        **{f"{part}_{name}": accuracy for part in ("train", "val") for name in scores},
        lr=0.1,
        dropout=0.0,
        seconds=1.0,
        images_per_second=1.0,
        is_best=True,
        batch_losses=(),
    )


class TestTrialsTable:
    def test_each_trial_is_a_row_with_its_parameters(self) -> None:
        nasty = {"epochs": 7, "=1+1": "@x", "lr": 0.1}
        record = record_of(
            trial(0, 0.9, 5.0, params=nasty),
            trial(1, state="failed", params={}, failure="=it broke"),
            trial(0, 0.5, 6.0, family="mlp", params={"width": 64}),
            objective="val_accuracy,params",
        )
        rows = list(csv.DictReader(io.StringIO(trials_csv([record, record]), newline="")))
        assert [(row["search"], row["trial"], row["state"]) for row in rows] == [
            ("digits", "cnn-0", "complete"),
            ("digits", "cnn-1", "failed"),
            ("digits", "mlp-0", "complete"),
        ]
        # A parameter may be called as a column of ours is.
        assert (rows[0]["epochs"], rows[0]["params_epochs"]) == ("1", "7")
        assert (rows[0]["value"], rows[0]["values_params"], rows[0]["params_lr"]) == (
            "0.9",
            "5.0",
            "0.1",
        )
        assert rows[1]["failure"] == "'=it broke"
        assert rows[0]["params_=1+1"] == "'@x"
        assert {rows[1][name] for name in rows[1] if name.startswith(("params_", "value"))} == {""}
        assert (rows[2]["params_width"], rows[2]["params_lr"]) == ("64", "")
