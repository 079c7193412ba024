"""Runs one of the five reference studies from the data to the report, on data that are made here.

    sh scripts/run_reference.sh NAME [FOLDER] [--smallest]

NAME is hands, caltech101, photos, sign_language or stl10. Each step is a command that is shown
before it runs: make the data, check them, train stand-ins for published weights, search with a few
trials (the author's best settings first), train the best again, export it, write the report. All of
it is in FOLDER, by default runs/reference/NAME. The same command again goes on where it ended.

The data are drawn and the weights have seen letters only: no figure says anything about the real
data. What to run on those is in each study's docstring. On two CPU cores that had other work to do,
caltech101 took 16 minutes and photos 12, once the stand-ins were trained; reckon with half an hour,
and with 12 GB of memory for photos. --smallest goes through the same steps in about a minute.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from make_stand_in_weights import stand_in_path

from hpsearch import HpsearchError, SplitSpec, load_study

ROOT = Path(__file__).resolve().parent.parent
NOTE = (
    "made data and stand-in weights: no figure here says anything about the real data or about "
    "published weights"
)
LABEL = "run_reference.txt"
"""The file in a folder that says what was run there."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Form:
    """How much of a study is run.

    Attributes:
        scale: how many images are made, 1 for the usual number.
        size: `--size`, smaller than the study's own.
        trials, epochs: of the search.
        sets: `--set`: what would cost too much here is narrowed.
        stand_ins: by model of torchvision whose published weights the study starts from, the
            `--set` that takes the file of the stand-in.
        training: options for the training of the stand-ins.
        options: more options of the search.
        data: `--data`, where the made data are elsewhere than the study looks for the real ones.
        split: `--split`, where the study's own is not for so few images.
        seeds: with which the best trial is trained again.
    """

    scale: float
    size: str
    trials: int
    epochs: int
    stand_ins: Mapping[str, str]
    sets: tuple[str, ...] = ()
    training: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    data: str = ""
    split: str = ""
    seeds: int = 2


_FULL = {
    "hands": Form(
        scale=1.0,
        size="96",
        trials=12,
        epochs=12,
        sets=("cnn.image_size=32", "resnet.image_size=64"),
        stand_ins={"resnet18": "resnet.weights={}"},
    ),
    "caltech101": Form(
        scale=1.0,
        size="72",
        trials=6,
        epochs=6,
        sets=("image_size=64", "resnet.image_size=48"),
        stand_ins={"alexnet": "alexnet.weights={},none", "resnet34": "resnet.weights={}"},
    ),
    "photos": Form(
        scale=0.6,
        size="444",  # six blocks without padding need so many pixels
        trials=4,
        epochs=4,
        sets=("cnn.image_size=444", "cnn.channels=8", "resnet.image_size=64", "depth=101"),
        stand_ins={"resnet101": "resnet.weights={}"},
    ),
    "sign_language": Form(
        scale=1.0,
        size="96",
        trials=8,
        epochs=25,
        sets=("image_size=64",),
        stand_ins={"alexnet": "alexnet.weights={}"},
    ),
    "stl10": Form(
        scale=0.3,
        size="64",
        trials=8,
        epochs=6,
        sets=("image_size=64",),
        stand_ins={"mobilenet_v2": "mobilenet.weights={}"},
        data="data/stl10/stl10.h5",
    ),
}

_smallest = functools.partial(
    Form,
    epochs=1,
    seeds=1,
    training=("--images", "16", "--letters", "2", "--epochs", "1"),
    options=("--workers", "0", "--device", "cpu", "--artifacts", "none"),
)

# One trial of each family.
_SMALLEST = {
    "hands": _smallest(
        scale=0.1,
        size="32",
        trials=2,
        sets=("image_size=32",),
        stand_ins={"resnet18": "resnet.weights={}"},
    ),
    "caltech101": _smallest(
        scale=0.1,
        size="64",
        trials=2,
        sets=("image_size=64", "depth=18"),
        stand_ins={"alexnet": "alexnet.weights={}", "resnet18": "resnet.weights={}"},
        split="30/35/35",  # an image of each of 101 classes in each part
    ),
    "photos": _smallest(
        scale=0.1,
        size="64",
        trials=2,
        sets=("image_size=64", "blocks=3", "depth=18"),
        stand_ins={"resnet18": "resnet.weights={}"},
    ),
    "sign_language": _smallest(
        scale=0.2,
        size="64",
        trials=2,
        sets=("image_size=64",),
        stand_ins={"alexnet": "alexnet.weights={}"},
    ),
    "stl10": _smallest(
        scale=0.05,
        size="64",
        trials=4,
        sets=("image_size=64",),
        stand_ins={"mobilenet_v2": "mobilenet.weights={}"},
        data="data/stl10/stl10.h5",
    ),
}

NAMES = tuple(_FULL)


def form_of(name: str, *, smallest: bool) -> Form:
    return (_SMALLEST if smallest else _FULL)[name]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """A command, run in the folder of the run.

    Attributes:
        result: what it makes, where it need not run again once that is there.
    """

    command: tuple[str, ...]
    result: str = ""


def steps(name: str, form: Form, folder: Path) -> Iterator[Step]:
    """The way from the data to the report."""
    study = ROOT / "studies" / f"{name}.py"
    split = _split_arguments(study, form)
    yield Step(
        command=(
            *("python", _near(ROOT / "scripts/make_reference_data.py", folder), name),
            *("--out", f"data/{name}", "--scale", f"{form.scale:g}"),
        ),
        result=f"data/{name}",
    )
    yield Step(command=("hpsearch", "data", "check", *_data_arguments(study, form), *split))
    sets = list(form.sets)
    for model, setting in form.stand_ins.items():
        script = _near(ROOT / "scripts/make_stand_in_weights.py", folder)
        file = stand_in_path(model, Path("weights")).as_posix()
        command = ("python", script, model, "--out", "weights", *form.training)
        yield Step(command=command, result=file)
        sets.append(setting.format(file))
    data = ("--data", form.data) if form.data else ()
    yield Step(
        command=(
            *("hpsearch", "search", _near(study, folder), *data, "--size", form.size, *split),
            *("--trials", str(form.trials), "--epochs", str(form.epochs)),
            *(word for setting in sets for word in ("--set", setting)),
            *form.options,
        )
    )
    retrained = f"exports/{name}-retrained"
    yield Step(command=("hpsearch", "retrain", name, "--seeds", str(form.seeds)), result=retrained)
    yield Step(command=("hpsearch", "export", name), result=f"exports/{name}")
    yield Step(command=("hpsearch", "report", name, "-o", "report.html"))


def _near(path: Path, folder: Path) -> str:
    """`path` as seen from the folder of the run, where that is in the same place."""
    return os.path.relpath(path, folder) if folder.is_relative_to(ROOT) else str(path)


def _data_arguments(study: Path, form: Form) -> list[str]:
    """What `hpsearch data` takes to read the data as the search will."""
    source = load_study(study).data_spec
    arguments = [form.data or source.source, "--size", form.size]
    if not form.data:
        arguments += ["--fit", source.fit]
        for name, value in source.options.items():
            arguments += ["--with", f"{name}={value}"]
        for label in source.exclude:
            arguments += ["--exclude", label]
    return arguments


def _split_arguments(study: Path, form: Form) -> tuple[str, ...]:
    """How the search will split the data."""
    split = load_study(study).split
    if split == SplitSpec() and not form.split:
        return ()
    parts = (1 - split.val - split.test, split.val, split.test)
    return ("--split", form.split or "/".join(f"{100 * part:g}" for part in parts))


Run = Callable[[Sequence[str], Path], int]
"""Runs a command in a folder; gives its exit code."""


def run(command: Sequence[str], folder: Path) -> int:
    """As from a terminal. Ctrl-C reaches the command, which ends in its own way."""
    programs = {
        "python": sys.executable,
        "hpsearch": str(Path(sys.executable).with_name("hpsearch")),
    }
    environment = dict(os.environ)
    environment.pop("HPSEARCH_STORAGE", None)  # the search's storage is to be in the folder, too
    line = [programs[command[0]], *command[1:]]
    with subprocess.Popen(line, cwd=folder, env=environment) as process:  # noqa: S603
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.wait()
            raise


def follow(name: str, folder: Path, *, smallest: bool, execute: Run = run) -> int:
    """Goes all steps, or those that are left; gives the exit code of the first that fails, or 0."""
    form = form_of(name, smallest=smallest)
    _claim(folder, f"{name}, {'smallest form' if smallest else 'full form'}: {NOTE}\n")
    print(f"{name}: {NOTE}\n\n$ cd {shlex.quote(str(folder))}", flush=True)
    for step in steps(name, form, folder):
        if step.result and (folder / step.result).exists():
            print(f"# {step.result} is there", flush=True)
            continue
        print(f"$ {shlex.join(step.command)}", flush=True)
        code = execute(step.command, folder)
        if code:
            what = shlex.join(step.command[:3])
            print(f"stopped: {what} ended with exit code {code}; the same command goes on there")
            return code
    print(f"\nthe report is {folder / 'report.html'}, the exports are in {folder / 'exports'}")
    print(f"{name}: {NOTE}")
    return 0


def _claim(folder: Path, text: str) -> None:
    """Makes the folder, or finds that it is of the same run.

    Raises:
        HpsearchError: it is of something else.
    """
    label = folder / LABEL
    if label.is_file() and label.read_text(encoding="utf-8") == text:
        return
    if folder.exists() and any(folder.iterdir()):
        raise HpsearchError(f"{folder} holds something else; name another folder, or delete it")
    folder.mkdir(parents=True, exist_ok=True)
    label.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Run a reference study from the data to the report, on made data.",
        epilog=f"It has {NOTE}.",
    )
    parser.add_argument("name", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument(
        "folder", type=Path, nargs="?", help="where all of it goes; by default runs/reference/NAME"
    )
    parser.add_argument(
        "--smallest", action="store_true", help="all steps, but with next to no images or epochs"
    )
    given = parser.parse_args()
    usual = f"{given.name}-smallest" if given.smallest else given.name
    folder = given.folder or ROOT / "runs" / "reference" / usual
    try:
        sys.exit(follow(given.name, folder.resolve(), smallest=given.smallest))
    except HpsearchError as error:
        parser.exit(2, f"error: {error}\n")
    except KeyboardInterrupt:
        print("stopped; the same command goes on there")
        sys.exit(130)


if __name__ == "__main__":
    main()
