"""The commands that a study's docstring names, and a record of what it tries first, by hand."""

from __future__ import annotations

import ast
import functools
import shlex
from pathlib import Path

from hpsearch import SearchRecord, StudySpec, TrialRecord, load_study
from hpsearch.config import TrainConfig
from hpsearch.data.dataset import ImageShape
from hpsearch.engine.place import Place
from hpsearch.families import Explorer, ParamValue, first_params, suggest_config

STUDIES = Path(__file__).parents[2] / "studies"
NAMES = ("hands", "caltech101", "photos", "sign_language", "stl10")
CLASSES = {"hands": 8, "caltech101": 101, "photos": 2, "sign_language": 9, "stl10": 10}


@functools.cache
def study(name: str) -> StudySpec:
    """The study that the file called `name` sets."""
    return load_study(STUDIES / f"{name}.py")


def shape(name: str) -> ImageShape:
    """Of the study's images; those of STL-10 keep their own size."""
    height, width = study(name).data_spec.size or (96, 96)
    return ImageShape(height, width, 3)


def commands(name: str) -> list[list[str]]:
    """The arguments of each `hpsearch` command in the study's docstring."""
    text = ast.get_docstring(ast.parse((STUDIES / f"{name}.py").read_text("utf-8"))) or ""
    lines = [line.strip() for line in text.splitlines() if line.startswith("    hpsearch ")]
    return [shlex.split(line)[1:] for line in lines]


@functools.cache
def tried_first(name: str, family: str) -> list[dict[str, ParamValue]]:
    """The parameters of the trials that a family begins with."""
    spec = study(name)
    return first_params(family, shape(name), spec.overrides, spec.first)


def config(name: str, family: str, number: int) -> TrainConfig:
    """Of the family's trial of this number."""
    spec = study(name)
    return suggest_config(
        family,
        Explorer(tried_first(name, family)[number]),
        shape(name),
        epochs=spec.epochs,
        seed=0,
        precision="fp32",
        overrides=spec.overrides,
    )


def record(name: str, runs: Path) -> SearchRecord:
    """The study's search as it is when it has made the trials that it begins with."""
    spec, place = study(name), Place.of(runs)
    trials = [
        TrialRecord(
            place=place,
            search=spec.name,
            family=family,
            number=number,
            state="complete",
            chosen_by="known-good",
            params=params,
            config=config(name, family, number),
            objective=spec.objective,
            value=0.5,
            val_accuracy=0.5,
            val_balanced_accuracy=0.5,
            val_macro_f1=0.5,
            val_loss=1.0,
            best_epoch=0,
            epochs=spec.epochs,
            seconds=1.0,
            parameters=1,
            failure="",
            note="",
            folder=runs,
        )
        for family in spec.families
        for number, params in enumerate(tried_first(name, family))
    ]
    size = shape(name)
    return SearchRecord(
        place=place,
        name=spec.name,
        families=spec.families,
        spec=spec.to_dict(),
        data={
            "source": spec.data_spec.to_dict(),
            "shape": {"height": size.height, "width": size.width, "channels": size.channels},
            "classes": [str(number) for number in range(CLASSES[name])],
        },
        fingerprints={},
        trials=tuple(trials),
        openings=(),
    )
