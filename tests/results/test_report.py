"""The report of records made by hand: what it counts and names, and how it is printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from hpsearch import SearchRecord, StudySpec, TrialRecord
from hpsearch.cli.report import print_report
from hpsearch.cli.text import UNITS, objective_value, scaled
from hpsearch.engine.place import Place
from hpsearch.results.report import report_document
from hpsearch.training.costs import COSTS, objective_rows
from hpsearch.training.objectives import OBJECTIVES


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
        document = report_document(record_of(*FRONT, objective=SEVERAL), best=1)
        assert document["objective"] == "val_accuracy"
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
        without_nan = report_document(record_of(*FRONT[:5], objective=SEVERAL))
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
        document = report_document(record)
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
        document = report_document(record_of(*self.TRIALS))
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
