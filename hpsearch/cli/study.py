"""What study a command means: a file or the default one, and the options that change it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpsearch.cli.options import DataOptions, SplitOptions, parse_pairs

if TYPE_CHECKING:
    from hpsearch.data.spec import DataSpec
    from hpsearch.engine.spec import StudySpec
    from hpsearch.families import Override, ParamValue

Study = Annotated[
    Path | None,
    typer.Argument(
        metavar="STUDY.py",
        help="A Python file that says what to search: from hpsearch import StudySpec; study = "
        "StudySpec(data='photos', trials=50). help(hpsearch.StudySpec) in Python has the rest. "
        "The options below come before what it says.",
    ),
]
NoFirst = Annotated[
    bool,
    typer.Option(
        "--no-first", help="Leave out the configurations that the study file has tried first."
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="DATA",
        help="The data: a name such as digits, a folder or a file; see 'hpsearch data list'.",
    ),
]
Families = Annotated[
    list[str] | None,
    typer.Option(
        help="Model families, such as cnn,resnet (see 'hpsearch families'), or a Python file with "
        "one of your own. Give the option again for more.",
        metavar="FAMILY",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Fix a parameter (lr=1e-3), narrow it (lr=1e-4..1e-2), leave some of its choices "
        "(optimizer=sgd,adamw), or search one that by default is not (ema=search); a list has "
        "slashes (widths=512/256); for one family only, cnn.lr=1e-3; 'hpsearch space FAMILY' lists "
        "them. Give the option again for more.",
    ),
]
Objective = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="What the best is chosen by: val_accuracy (default), val_balanced_accuracy, "
        "val_macro_f1 or val_loss; several, with a Pareto front, as val_accuracy,params: behind "
        "the first also params, macs, latency.",
    ),
]
Sampler = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="What chooses the parameters: tpe, gp, random, qmc, grid or nsga2."
    ),
]
SamplerSet = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="A setting of the sampler, as n_startup_trials=5; a name that there is not gets all "
        "that there are. Give the option again for more.",
    ),
]
Pruner = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="What stops trials early: median, percentile, hyperband, halving, patient, threshold "
        "or none.",
    ),
]
PrunerSet = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="A setting of the pruner, as n_startup_trials=5; a name that there is not gets all "
        "that there are. Give the option again for more.",
    ),
]
Patience = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Stop when N trials in a row did not make the best better; 0: go through all.",
    ),
]
Attempts = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Fail a trial whose worker died N times in a row without getting further.",
    ),
]

_TRUTHS = {"true": True, "yes": True, "false": False, "no": False}
"""How a setting is written that is on or off."""


def study_spec(
    study: Path | None,
    data: str | None,
    reading: DataOptions,
    split: SplitOptions,
    *,
    families: Sequence[str] | None,
    no_first: bool = False,
    overrides: Sequence[str] | None = None,
    sampler_set: Sequence[str] | None = None,
    pruner_set: Sequence[str] | None = None,
    **fields: Any,
) -> StudySpec:
    """The study file's specification, or the default one, with the given options on top.

    Args:
        overrides, sampler_set, pruner_set: what --set, --sampler-set and --pruner-set say.
        fields: of the specification, as they are there; None where an option is not given.
    """
    from hpsearch.engine.spec import StudySpec
    from hpsearch.engine.study_file import load_study

    spec = load_study(study) if study is not None else StudySpec()
    if no_first:
        spec = dataclasses.replace(spec, first=())
    given = parse_overrides(overrides or [])
    families = _family_names(families or [])
    spec = _without_families(_giving_way(spec, given), families)
    for kind, texts in (("sampler", sampler_set), ("pruner", pruner_set)):
        # Settings of the file are for the file's own choice.
        stays = fields.get(kind) in (None, getattr(spec, kind))
        fields[f"{kind}_options"] = {
            **(getattr(spec, f"{kind}_options") if stays else {}),
            **parse_settings(f"--{kind}-set", texts or []),
        }
    changes = {name: value for name, value in fields.items() if value is not None}
    if families:
        changes["families"] = families
    if data is not None and spec.name == StudySpec(data=spec.data_spec).name:
        changes.setdefault("name", "")  # the name follows the data
    changes["data"] = reading.spec(spec.data_spec if data is None else _elsewhere(spec, data))
    changes["split"] = split.spec(spec.split)
    if given:
        changes["overrides"] = {**spec.overrides, **given}
    return dataclasses.replace(spec, **changes)


def _giving_way(spec: StudySpec, overrides: Mapping[str, Override]) -> StudySpec:
    """The specification without what it says of the parameters that `overrides` name: for a family
    or in a configuration to try first, where it would come before them.
    """

    def stays(key: str) -> bool:
        return key not in overrides and key.rpartition(".")[2] not in overrides

    return _filtered(spec, stays)


def _family_names(texts: Sequence[str]) -> tuple[str, ...]:
    """What --family says, several names with commas; files of the user's own are found from
    anywhere afterwards.
    """
    names = [
        name.strip()
        for text in texts
        for name in ([text] if Path(text).is_file() else text.split(","))
    ]
    return tuple(str(Path(name).resolve()) if name.endswith(".py") else name for name in names)


def _without_families(spec: StudySpec, families: Sequence[str]) -> StudySpec:
    """The specification without what it says of single families that are not among the given
    ones.
    """
    if not families:
        return spec
    from hpsearch.names import family_label

    gone = set(map(family_label, spec.families)) - set(map(family_label, families))
    return _filtered(spec, lambda key: key.rpartition(".")[0] not in gone)


def _filtered(spec: StudySpec, stays: Callable[[str], bool]) -> StudySpec:
    def kept(values: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in values.items() if stays(key)}

    return dataclasses.replace(
        spec,
        overrides=kept(spec.overrides),
        first=tuple(filter(None, map(kept, spec.first))),
    )


def _elsewhere(spec: StudySpec, data: str) -> DataSpec:
    """The specification's data at another place, with the options that are read there: those of
    another kind of source mean something else.
    """
    from hpsearch.data.sources import source_of
    from hpsearch.errors import DataError

    moved = dataclasses.replace(spec.data_spec, source=data, options={})
    row = before = source_of(moved)
    with contextlib.suppress(DataError):  # what is not here may be of any kind
        before = source_of(spec.data_spec)
    known = {option.name for option in row.options} if row is before else set()
    options = {name: value for name, value in spec.data_spec.options.items() if name in known}
    return dataclasses.replace(moved, options=options)


def parse_overrides(texts: Sequence[str]) -> dict[str, Override]:
    """What --set says, by the name of a parameter.

    Raises:
        SpaceError: it has not its form, or one name is given twice.
    """
    from hpsearch.errors import SpaceError
    from hpsearch.families import parse_override

    overrides: dict[str, Override] = {}
    for name, override in map(parse_override, texts):
        if name in overrides:
            raise SpaceError(f"--set {name} is given twice; give it once, as LOW..HIGH or A,B")
        overrides[name] = override
    return overrides


def parse_settings(option: str, texts: Sequence[str]) -> dict[str, ParamValue]:
    """What an option such as --sampler-set says: numbers, true or false, else texts, by name.

    Raises:
        SearchError: it has not the form NAME=VALUE, or one name is given twice.
    """
    from hpsearch.errors import SearchError

    pairs = parse_pairs(option, texts, example="n_startup_trials=5", error=SearchError)
    return {name: _parse_setting(value) for name, value in pairs}


def _parse_setting(text: str) -> ParamValue:
    if text.lower() in _TRUTHS:
        return _TRUTHS[text.lower()]
    for parse in (int, float):
        with contextlib.suppress(ValueError):
            return parse(text)
    return text
