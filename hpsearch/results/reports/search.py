"""One search in a report: a section of its page, with its pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hpsearch.data.words import plural
from hpsearch.engine.ablation import ablation_of
from hpsearch.engine.records import SearchRecord, TrialRecord
from hpsearch.engine.states import ASIDE
from hpsearch.figures.factors import factors_figure
from hpsearch.figures.front import front_figure
from hpsearch.figures.page import drawing, safe, short, table
from hpsearch.figures.trials import trials_figure
from hpsearch.names import value_text
from hpsearch.results.ablation_picture import ablation_picture
from hpsearch.results.reports.cells import (
    facts,
    fixed,
    of_look,
    of_result,
    of_test,
    time_text,
    whole,
)
from hpsearch.results.reports.interactive import Plot, interactive
from hpsearch.results.reports.plots import (
    LEAST_TRIALS,
    MOST_PARAMETERS,
    FamilyStudy,
    curves_of,
    factors_of,
    family_studies,
)
from hpsearch.training.units import accuracy, objective_difference, objective_value, time_of

_MOST_LINES = 20
"""Of failures and the like so many are listed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """A part of a page.

    Attributes:
        is_interactive: it has figures that scripts draw.
    """

    html: str
    is_interactive: bool


def search_section(record: SearchRecord, document: Mapping[str, Any], *, anchor: str) -> Section:
    """The section of a search.

    Args:
        document: its own, see `hpsearch.results.reports.document.search_document`.
        anchor: what links to it name.
    """
    studies = family_studies(record)
    plots = {study.family: interactive(study, record) for study in studies}
    parts = [
        f'<section id="{anchor}">\n<h2>Search {short(record.name)}</h2>',
        facts(_facts(record, document)),
        f"<p>{_openings(document)}</p>",
        *_tests(document),
        *_best_trials(record, document),
        *_times(record),
        *_curves(record),
        *_front(record),
        *_ablation(record, document),
        *(part for study in studies for part in _family(record, study, plots[study.family])),
        *_troubles(document),
        "</section>",
    ]
    return Section(html="\n".join(parts), is_interactive=any(plots.values()))


def _facts(record: SearchRecord, document: Mapping[str, Any]) -> list[tuple[str, str]]:
    data, spec, split = document["data"], record.spec, document["split"]
    counts, shape = data["counts"], data.get("shape")
    images = f"{counts['train']:,} training, {counts['val']:,} validation, {counts['test']:,} test"
    size = f", {shape['height']}x{shape['width']}x{shape['channels']}" if shape else ""
    classes = f", {len(data['classes']):,} classes" if "classes" in data else ""
    # Those that were asked for are not these where the data has an official split, or groups.
    shares = {part: 100 * count / sum(counts.values()) for part, count in counts.items()}
    parts = f"{shares['val']:.0f} % validation, {shares['test']:.0f} % test"
    asked = document["trials"]
    return [
        ("data", f"{short(data['name'])}: {images} images{size}{classes}"),
        (
            "split",
            f"{parts}, seed {split['seed']}; fingerprints {safe(data['fingerprint'][:8])} (data) "
            f"and {safe(split['fingerprint'][:8])} (split)",
        ),
        *(("note", safe(note)) for note in data.get("notes", ())),
        *(("wrong with the data", safe(error)) for error in data["errors"]),
        ("objectives" if len(record.objectives) > 1 else "objective", safe(_aims(document))),
        (
            "search",
            f"{asked['finished']:,} of {asked['asked']:,} trials finished; {spec['epochs']} epochs "
            f"each at most; sampler {safe(spec.get('sampler', 'tpe'))}, pruner "
            f"{safe(spec.get('pruner', 'median'))}, seed {spec['seed']}",
        ),
    ]


def _aims(document: Mapping[str, Any]) -> str:
    return ", ".join(f"{row['direction']} {row['label']}" for row in document["objectives"])


def _openings(document: Mapping[str, Any]) -> str:
    openings = document["test_openings"]
    if not openings:
        return (
            "The test split has not been opened yet: nothing here was chosen by it, and the first "
            "score on it can be believed."
        )
    by_trial: dict[str, int] = {}
    for opening in openings:
        # Looks are counted over all searches that have the same test images.
        of = "" if opening["search"] == document["search"] else f" of {opening['search']}"
        name = f"{opening['trial']}{of}"
        by_trial[name] = by_trial.get(name, 0) + 1
    named = [f"{trial}" + (f" ({n} times)" if n > 1 else "") for trial, n in by_trial.items()]
    looks = safe(", ".join(named[:_MOST_LINES])) + (", …" if len(named) > _MOST_LINES else "")
    if len(openings) == 1:
        return (
            f"The test split was opened once, for {looks}: its score was not picked among several."
        )
    return (
        f"The test split was opened {len(openings):,} times, for {looks}. Whoever picks the best "
        "of several test scores gets one that is too good: only a score of a model that was chosen "
        "before can be believed."
    )


def _tests(document: Mapping[str, Any]) -> Iterator[str]:
    """What each export and retraining gave, not only the newest of each trial."""
    opened = len(document["test_openings"])
    rows = [
        (
            *(short(row["trial"]), safe(row["kind"]), safe(of_result(row))),
            *(of_look(row, opened), safe(time_of(row["when"])), safe(row["folder"])),
        )
        for row in document["test_results"]
    ]
    if rows:
        heads = ("trial", "by", "test accuracy (95 %)", "look", "when (UTC)", "folder")
        yield "<h3>Test results, the newest last</h3>"
        yield f'<div class="wide best">{table(heads, rows)}</div>'


def _best_trials(record: SearchRecord, document: Mapping[str, Any]) -> Iterator[str]:
    if not record.ranked():
        yield "<p>No trial is complete yet.</p>"
    if not document["best_trials"]:
        return
    rows = [
        {
            "trial": short(row["trial"]),
            "chosen by": safe(row["chosen_by"]),
            record.objective.short: objective_value(record.objective, row["value"]),
            "val. acc.": accuracy(row["val_accuracy"]),
            "loss": fixed(row["val_loss"]),
            "test acc.": safe(of_test(row["test"], short=True)),
            "best epoch": whole(row["best_epoch"]),
            "parameters": safe(_parameters(row["params"])),
        }
        for row in document["best_trials"]
    ]
    heads = list(rows[0])
    cells = [list(row.values()) for row in rows]
    yield "<h3>Best trials</h3>"
    yield f'<div class="wide best">{table(heads, cells, numbers=range(2, len(heads) - 1))}</div>'
    yield '<p class="soft">Epochs are counted from 0, here and in the figures.</p>'


def _parameters(params: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in params.items()
    )


def _times(record: SearchRecord) -> Iterator[str]:
    """Where the time went."""

    def seconds(trials: Sequence[TrialRecord], *states: str) -> float:
        return sum(t.seconds for t in trials if not states or t.state in states)

    rows = []
    for family in record.families:
        trials = [trial for trial in record.trials if trial.family == family]
        rows.append(
            (
                short(family),
                whole(sum(trial.state not in (*ASIDE, "waiting") for trial in trials)),
                *(time_text(seconds(trials, s)) for s in ("complete", "pruned", "failed")),
                time_text(seconds(trials)),
            )
        )
    heads = ("family", "trials", "complete ones", "pruned ones", "failed ones", "time in all")
    yield "<h3>Time by family</h3>"
    yield table(heads, rows, numbers=range(1, 6))


def _curves(record: SearchRecord) -> Iterator[str]:
    curves = curves_of(record)
    if any(trial.points() for trials in curves.values() for trial in trials):
        title = f"{record.name}: {record.objective.label} of all trials"
        yield "<h3>Learning curves of all trials</h3>"
        yield drawing(
            trials_figure(curves, objective=record.objective, title=title),
            alt="learning curves of all trials; pruned ones end with a cross",
        )


def _front(record: SearchRecord) -> Iterator[str]:
    if len(record.objectives) < 2 or not record.pareto():
        return
    on_front = {trial.name for trial in record.pareto()}
    points = {
        family: [
            (trial.values, trial.name in on_front)
            for trial in record.ranked(family)
            if len(trial.values) == len(record.objectives)
        ]
        for family in record.families
    }
    title = f"{record.name}: what no other trial beats in all objectives is filled"
    rows = [
        (
            short(trial.name),
            *(
                objective_value(row, value)
                for row, value in zip(record.objectives, trial.values, strict=False)
            ),
        )
        for trial in record.pareto()
    ]
    heads = ["trial", *(row.short for row in record.objectives)]
    yield "<h3>Pareto front</h3>"
    yield drawing(
        front_figure(points, objectives=record.objectives, title=title), alt="Pareto front"
    )
    yield table(heads, rows, numbers=range(1, len(heads)))


def _ablation(record: SearchRecord, document: Mapping[str, Any]) -> Iterator[str]:
    ablation = ablation_of(record)
    if ablation is None:
        return
    objective, center = record.objective, document["ablation"]["center"]
    values = ", ".join(f"{name} {value_text(value)}" for name, value in center["values"].items())
    yield "<h3>Ablation: one parameter at a time</h3>"
    yield f"<p>Center: {short(center['trial'] or 'no trial yet')} ({safe(values)}).</p>"
    yield drawing(
        ablation_picture(ablation),
        alt="for each parameter the learning curves and the outcomes of its values",
    )
    points = "points" if objective.is_share else "difference"
    for name, rows in document["ablation"]["parameters"].items():
        cells = [
            (
                safe(value_text(row["setting"])) + (" (center)" if row["is_center"] else ""),
                short(row["trial"] or "–"),
                objective_value(objective, row["value"])
                if row["value"] is not None
                else safe(row["state"]),
                objective_difference(objective, row["difference"]),
                fixed(row["val_loss"]),
                whole(row["best_epoch"]),
            )
            for row in rows
        ]
        heads = (short(name), "trial", objective.short, points, "loss", "best epoch")
        yield table(heads, cells, numbers=range(2, 6))


def _family(record: SearchRecord, study: FamilyStudy, plots: Sequence[Plot]) -> Iterator[str]:
    if not study.records:
        return
    yield f"<h2>{short(record.name)}: {short(study.family)}</h2>"
    if not study.importances:
        yield (
            '<p class="soft">Which parameters matter cannot be said: it takes '
            f"{LEAST_TRIALS} complete trials that differ.</p>"
        )
    elif len(study.parameters) > MOST_PARAMETERS:
        yield (
            f'<p class="soft">Of {len(study.parameters)} parameters that were varied, the '
            f"{MOST_PARAMETERS} most important ones are shown. Importance is how much better "
            "trials differ in a parameter from all (PED-ANOVA): with few trials it is a guess.</p>"
        )
    for plot in plots:
        if plot.title:
            yield f"<h3>{safe(plot.title)}</h3>"
        yield _box(plot)
    factors = factors_of(study, record.leader(study.family))
    # Of an ablation there is a figure already, in which the other parameters do not differ.
    if factors and ablation_of(record) is None:
        title = f"{record.name}, {study.family}: one parameter at a time"
        yield "<h3>One parameter at a time</h3>"
        yield (
            '<p class="soft">Left the learning curves in the colour of the value, those of pruned '
            "trials with a cross at the end; right the best value of each trial: hollow where it "
            "was not completed, a triangle where it lies below the picture, a bar for the median "
            "of the complete ones. The other parameters differ, too.</p>"
        )
        yield drawing(
            factors_figure(factors, objective=record.objective, title=title),
            alt="for each parameter the learning curves and the best values by its value",
            dots=90,
        )


def _box(plot: Plot) -> str:
    width = "" if plot.width is None else f"min-width:{plot.width}px;"
    return (
        f'<div class="wide"><div class="plot" style="{width}height:{plot.height}px"></div>'
        f'<script type="application/json">{plot.figure}</script></div>'
    )


def _troubles(document: Mapping[str, Any]) -> Iterator[str]:
    for title, rows in (
        ("Failed", _lines(document["failures"], "reason")),
        ("Infeasible, and not counted as trials", _lines(document["infeasible"], "reason")),
        ("Notes", _lines(document["notes"], "note")),
    ):
        if rows:
            yield f"<h3>{title}</h3>"
            shown = "\n".join(f"<li>{row}</li>" for row in rows[:_MOST_LINES])
            more = len(rows) - _MOST_LINES
            yield f"<ul>\n{shown}\n</ul>" + (f"<p>and {more:,} more</p>" if more > 0 else "")
    count = len(document["duplicates"])
    if count:
        yield (
            f"<p>{plural(count, 'configuration')} had been measured already and "
            f"{'were' if count > 1 else 'was'} not measured again.</p>"
        )
    for state in ("interrupted", "paused"):
        if document[state]:
            yield f"<p>{len(document[state]):,} {state}: {safe(', '.join(document[state]))}</p>"


def _lines(rows: Sequence[Mapping[str, str]], key: str) -> list[str]:
    return [f"{short(row['trial'])}: {safe(row[key])}" for row in rows]
