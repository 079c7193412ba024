"""Notes for the dashboard, in Markdown: what a trial was and how it ended, what a study is for.

Texts from outside (classes, paths, errors) have no meaning in them, and no password is shown.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpsearch.data.words import plural
from hpsearch.engine.place import Place, study_name
from hpsearch.engine.policy_options import find_row
from hpsearch.engine.pruners import PRUNERS
from hpsearch.engine.records import SearchRecord, TrialRecord
from hpsearch.engine.samplers import SAMPLERS
from hpsearch.engine.setup import epochs_of
from hpsearch.engine.spec import StudySpec
from hpsearch.engine.states import ASIDE, DUPLICATE, FINISHED
from hpsearch.families import Parameter, condition_text
from hpsearch.names import family_label, markdown, printable, value_text, without_password
from hpsearch.training.objectives import OBJECTIVES, objective_info
from hpsearch.training.units import EPOCHS, duration, objective_value
from hpsearch.training.words import configuration

_MOST_CLASSES = 30

_CHOSEN_BY = {
    "known-good": "tried first: settings known to work, or given by the study",
    "random": "drawn without a model of the trials before it",
    "model": "proposed by the sampler, by what the trials before it gave",
}


def trial_note(
    trial: TrialRecord, *, spec: StudySpec, space: Sequence[Parameter] = (), why: str = ""
) -> str:
    """The note of a trial that ended.

    Args:
        space: its family's parameters, which say what its own are.
        why: it was pruned, in words without a full stop (see `why_pruned`); empty where that is not
            known.
    """

    def text(value: object) -> str:
        return _text(trial.place, str(value))

    lines = [f"### {text(trial.name)}: {trial.state}", "", text(_ending(trial, why)), ""]
    if trial.note:
        lines += [f"Note: {text(_sentence(trial.note))}", ""]
    rows = _outcome(trial, spec)
    if rows:
        lines += [*_table(("", ""), ((name, text(value)) for name, value in rows)), ""]
    if trial.params:
        helps = {row.name: row.help for row in space}
        cells = (
            (text(name), text(value_text(value)), text(helps.get(name, "")))
            for name, value in trial.params.items()
        )
        lines += ["#### Parameters", "", *_table(("parameter", "value", ""), cells), ""]
    if trial.config is not None:
        words = configuration(trial.config.to_dict())
        rows = [(name, text(value)) for name, value in words]
        lines += ["#### Configuration", "", *_table(("", ""), rows), ""]
    if trial.state == "complete":
        kept = f"the best {spec.keep} of each family" if spec.keep > 1 else "each family's best"
        chosen = f"{trial.search} --trial {shlex.quote(trial.name)}{_options(trial.place)}"
        lines += ["#### Commands", "", "To train its configuration again:", ""]
        lines += [_command(trial.place, f"hpsearch retrain {chosen}"), ""]
        lines += [f"To export it, as long as its checkpoint is kept ({kept}):", ""]
        lines += [_command(trial.place, f"hpsearch export {chosen}"), ""]
    return "\n".join(lines)


def study_note(
    record: SearchRecord,
    family: str,
    *,
    spec: StudySpec,
    space: Sequence[Parameter],
    studies: Mapping[str, int],
) -> str:
    """The note of a family's study.

    Args:
        space: what is searched.
        studies: the numbers by which the dashboard knows the studies of the search, by family.
    """

    def text(value: object) -> str:
        return _text(record.place, str(value))

    counts = {state: record.count(state, family) for state in (*FINISHED, *ASIDE)}
    ended = [f"{count:,} {state}" for state, count in counts.items() if count]
    leader = record.leader(family)
    best = "No trial is complete yet."
    if leader is not None and leader.best_epoch is not None:
        best = (
            f"The best is **{text(leader.name)}**, with a {record.objective.label} of "
            f"**{text(objective_value(record.objective, leader.value))}** after epoch "
            f"{leader.best_epoch}. {EPOCHS}"
        )
    lines = [
        f"### {text(study_name(record.name, family))}",
        "",
        f"The trials of the family {text(family)} in the search {text(record.name)}, which is for "
        f"{text(_purpose(record))}. {best}",
        "",
        f"Trials that ended: {', '.join(ended) or 'none'}.",
        "",
        "#### Families of the search",
        "",
        *_table(
            ("family", "study", "ended", "best trial", record.objective.label),
            (_family_row(record, other, studies) for other in record.ranked_families()),
        ),
        "",
        "#### Data",
        "",
        *_table(("", ""), ((name, text(value)) for name, value in _data_rows(record.data))),
        "",
        "#### Space",
        "",
        *_table(
            ("parameter", "range", "scale", "exists with", "what"),
            ([text(cell) for cell in _space_row(row)] for row in space),
        ),
        "",
        "#### Budget",
        "",
        *_table(
            ("", ""),
            ((name, text(value)) for name, value in _budget_rows(family, spec, space)),
        ),
        "",
        "#### Commands",
        "",
        *_commands(record.place, record.name),
    ]
    return "\n".join(lines)


def _ending(trial: TrialRecord, why: str) -> str:
    """How the trial ended, in a sentence or two."""
    objective = objective_info(trial.objective)
    value = objective_value(objective, trial.value)
    epochs = plural(trial.epochs, "epoch")
    best = "" if trial.value is None else f" Its best {objective.label} was {value}"
    best += f", after epoch {trial.best_epoch}." if best else ""
    if trial.state == "complete":
        return f"It was trained for {epochs}.{best} {EPOCHS}"
    if trial.state == "pruned" and not trial.failure:
        told = f": {why}." if why else f", after {epochs}.{best}"
        return f"It was stopped early{told} {EPOCHS}"
    if trial.state in ("pruned", "failed"):
        after = f" after {epochs}" if trial.epochs else ""
        word = "stopped" if trial.state == "pruned" else "failed"
        told = f": {_sentence(trial.failure)}" if trial.failure else "."
        return f"It {word}{after}{told}{f'{best} {EPOCHS}' if best else ''}"
    if trial.state == DUPLICATE:
        return f"It was not trained, and is not counted: {_sentence(trial.failure)}"
    return f"It could not be trained, and is not counted: {_sentence(trial.failure)}"


def _outcome(trial: TrialRecord, spec: StudySpec) -> list[tuple[str, str]]:
    scores = {
        "val_accuracy": trial.val_accuracy,
        "val_balanced_accuracy": trial.val_balanced_accuracy,
        "val_macro_f1": trial.val_macro_f1,
        "val_loss": trial.val_loss,
    }
    rows = [(row.label, objective_value(row, scores[row.name])) for row in OBJECTIVES]
    rows = [(label, value) for label, value in rows if value != "–"]
    rows += [
        (row.label, objective_value(row, value))
        for row, value in zip(spec.objectives, trial.values, strict=False)
        if row.name not in scores
    ]
    if trial.best_epoch is not None:
        rows.append(("best epoch", f"{trial.best_epoch}, of {trial.epochs:,} from 0"))
    if trial.parameters:
        rows.append(("parameters of the model", f"{trial.parameters:,}"))
    if trial.seconds:
        pace = trial.images_per_second
        rows.append(("time", duration(trial.seconds) + (f", {pace:,.0f} images/s" if pace else "")))
    if trial.device:
        rows.append(("device", trial.device + (f" of {trial.host}" if trial.host else "")))
    if trial.peak_memory is not None:
        rows.append(("peak memory", f"{trial.peak_memory:,.0f} MiB"))
    if trial.chosen_by:
        rows.append(("configuration", _CHOSEN_BY.get(trial.chosen_by, trial.chosen_by)))
    return rows


def _purpose(record: SearchRecord) -> str:
    """What a search is for."""
    wanted = [
        f"{'a high' if row.direction == 'maximize' else 'a low'} {row.label}"
        for row in record.objectives
    ]
    *first, last = wanted
    return f"{', '.join(first)} and {last}" if first else last


def _family_row(
    record: SearchRecord, family: str, studies: Mapping[str, int]
) -> tuple[str, str, str, str, str]:
    leader = record.leader(family)
    study = _text(record.place, study_name(record.name, family))
    if family in studies:
        study = f"[{study}](/dashboard/studies/{studies[family]})"
    ended = sum(record.count(state, family) for state in FINISHED)
    return (
        _text(record.place, family),
        study,
        f"{ended:,}",
        _text(record.place, leader.name) if leader else "–",
        objective_value(record.objective, leader.value if leader else None),
    )


def _data_rows(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    shape, counts, classes = data["shape"], data["counts"], data["classes"]
    source = data.get("source")
    shown = ", ".join(classes[:_MOST_CLASSES])
    more = f" and {len(classes) - _MOST_CLASSES:,} more" if len(classes) > _MOST_CLASSES else ""
    return [
        ("name", data["name"]),
        ("source", str(source.get("source", "")) if isinstance(source, Mapping) else str(source)),
        ("images", f"{shape['height']}x{shape['width']}x{shape['channels']}"),
        ("classes", f"{len(classes):,}: {shown}{more}"),
        ("training images", f"{counts['train']:,}"),
        ("validation images", f"{counts['val']:,}, by which trials are judged"),
        ("test images", f"{counts['test']:,}, sealed: no trial is shown or judged by them"),
        *(("note", note) for note in data.get("notes", ())),
    ]


def _space_row(row: Parameter) -> tuple[str, str, str, str, str]:
    scale = ("log" if row.log else "linear") if row.kind in ("float", "int") else ""
    values = ", ".join(value_text(choice) for choice in row.choices)
    return row.name, values or str(row), scale, condition_text(row.condition), row.help


def _budget_rows(family: str, spec: StudySpec, space: Sequence[Parameter]) -> list[tuple[str, str]]:
    share = {family_label(name): count for name, count in spec.shares().items()}[family]
    least, most = epochs_of(spec, space)
    rows = [
        ("trials", f"{share:,} of the search's {spec.trials:,}"),
        ("epochs of a trial", f"{most:,}" if least == most else f"{least:,} to {most:,}"),
    ]
    if spec.early_stopping is not None:
        rows.append(("early stopping", f"after {spec.early_stopping.patience:,} epochs no better"))
    if spec.patience:
        rows.append(("patience", f"ends after {spec.patience:,} trials in a row without a gain"))
    sampler = find_row("sampler", SAMPLERS, spec.sampler)
    rows.append(("sampler", _policy(spec.sampler, spec.sampler_options, sampler.help)))
    pruner = find_row("pruner", PRUNERS, spec.pruner)
    if len(spec.objectives) > 1:
        rows.append(("pruner", "none: by several objectives Optuna cannot judge a trial early"))
    elif least < most:
        rows.append(("pruner", "none: trials of different lengths cannot be compared on the way"))
    else:
        rows.append(("pruner", _policy(spec.pruner, spec.pruner_options, pruner.help)))
    rows.append(("seed", str(spec.seed)))
    return rows


def _policy(name: str, options: Mapping[str, Any], words: str) -> str:
    given = ", ".join(f"{key} {value_text(value)}" for key, value in options.items())
    return f"{name}{f' ({given})' if given else ''}: {words}"


def _commands(place: Place, search: str) -> list[str]:
    options = _options(place)
    lines = []
    if place.is_server:
        lines += [
            f"With the address of the database {_text(place, str(place))} in HPSEARCH_STORAGE:",
            "",
        ]
    for what, command in (
        ("To go on with it where nobody does, or to help it", "worker {}{}"),
        ("To report on it", "report {}{} -o report.html"),
        ("To export the best trial of all families, and open the test split", "export {}{}"),
        ("To train the best configuration again, with five seeds", "retrain {}{} --seeds 5"),
    ):
        shown = f"hpsearch {command.format(search, options)}"
        lines += [f"{what}:", "", _command(place, shown), ""]
    return lines


def _options(place: Place) -> str:
    """The options by which commands find the place, but for the database's address."""
    return "" if place.runs == Path("runs") else f" --runs {shlex.quote(str(place.runs))}"


def _command(place: Place, command: str) -> str:
    """A line of code, in which nothing has a meaning to Markdown."""
    return f"    {printable(_without_secrets(place, command))}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table of cells that are Markdown already."""
    return [
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
        *(f"| {' | '.join(cells)} |" for cells in rows),
    ]


def _sentence(text: str) -> str:
    """`text` with a full stop."""
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _text(place: Place, text: str) -> str:
    return markdown(_without_secrets(place, text))


def _without_secrets(place: Place, text: str) -> str:
    return without_password(place.without_secrets(text))
