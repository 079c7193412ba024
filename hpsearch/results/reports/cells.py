"""What stands in the cells of a report's tables, as text for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hpsearch.data.words import plural
from hpsearch.names import listed
from hpsearch.training.units import accuracy, duration

_MOST_VALUES = 6


def fixed(value: float | None) -> str:
    """A loss, with four decimals."""
    return "–" if value is None else f"{value:.4f}"


def whole(value: float | None) -> str:
    """A count, or a rate that is rounded to one."""
    return "–" if value is None else f"{value:,.0f}"


def of_test(test: Mapping[str, Any] | None, *, short: bool = False) -> str:
    """What a trial reached on the test split (see `hpsearch.results.reports.rows.leaderboard`): one
    model's accuracy with its interval, several seeds' mean with its deviation; a dash where it was
    not tested. Where the weights that it started from had seen test images, it is without those.

    Args:
        short: without the interval.
    """
    if test is None:
        return "–"
    new = test.get("new")
    if new is not None:
        if not new["images"]:
            return f"{of_test({**test, 'new': None}, short=short)}, all seen"
        return f"{of_test(new, short=short)} of {new['images']:,} new"
    if test.get("mean") is not None:
        deviation = "" if test["std"] is None else f" ± {100 * test['std']:.2f}"
        return f"{accuracy(test['mean'])}{deviation} ({plural(test['seeds'], 'seed')})"
    if short or "accuracy_95" not in test:
        return accuracy(test["accuracy"])
    low, high = test["accuracy_95"]
    return f"{accuracy(test['accuracy'])} ({100 * low:.1f} to {100 * high:.1f})"


def of_result(result: Mapping[str, Any]) -> str:
    """What one look at the test split gave (a row of `test_results` of a search's document): of
    several seeds first all of them, then the model that was kept.
    """
    test = scores_of(result["accuracy"], result["details"])
    if test.get("mean") is None:
        return of_test(test)
    kept = {key: value for key, value in test.items() if key != "mean"}
    if test.get("new") is not None:
        kept["new"] = {key: value for key, value in test["new"].items() if key != "mean"}
    return f"{of_test(test)}; kept {of_test(kept)}"


def of_look(result: Mapping[str, Any], opened: int) -> str:
    """2 of 5: which look at the test split it was."""
    return "–" if result["look"] is None else f"{result['look']:,} of {opened:,}"


def scores_of(accuracy: float, details: Mapping[str, Any]) -> dict[str, Any]:
    """What `of_test` takes: of one model the interval of its accuracy; of several seeds their mean
    and deviation.
    """
    known = ("accuracy_95", "mean", "std", "seeds", "on", "new")
    return {"accuracy": accuracy, **{key: details[key] for key in known if key in details}}


def varied_text(varied: Mapping[str, Mapping[str, Any]]) -> str:
    """Lr 0.0003 to 0.1; optimizer adamw, sgd."""
    return "; ".join(f"{name} {_values(values)}" for name, values in varied.items())


def time_text(seconds: float) -> str:
    """12.3 s, or a dash for no time at all."""
    return duration(seconds) if seconds else "–"


def _values(values: Mapping[str, Any]) -> str:
    if "values" in values:
        return listed([_number(value) for value in values["values"]], _MOST_VALUES)
    return f"{_number(values['low'])} to {_number(values['high'])}"


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def facts(rows: Sequence[tuple[str, str]]) -> str:
    """A table of names and values (HTML) without a header."""
    cells = "\n".join(f"<tr><td>{name}</td><td>{value}</td></tr>" for name, value in rows)
    return f'<table class="facts"><tbody>\n{cells}\n</tbody></table>'
