"""What the help of the commands looks like."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import typer

from hpsearch.cli.main import app

Run = Callable[[str], tuple[int, str, str]]


def command_names(group: Any, before: str = "") -> Iterator[str]:
    """Of all commands, those in groups as `data check`."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from command_names(command, f"{name} ")
        else:
            yield f"{before}{name}"


@pytest.mark.parametrize("command", [*command_names(typer.main.get_command(app))])
def test_arguments_and_options_have_names_as_in_manuals(run: Run, command: str) -> None:
    code, out, err = run(f"{command} --help")
    assert (code, err) == (0, "")
    usage, _, rest = out.partition("\n\n")
    assert not set("{}<>") & set(usage)
    assert not re.search(r"<(\w+|\w+ range|list\[\w+\])>", rest)


def test_what_is_there_several_times_has_dots(run: Run) -> None:
    assert "predict [OPTIONS] EXPORT PATH...\n" in run("predict --help")[1]
    assert "report [OPTIONS] [NAME]...\n" in run("report --help")[1]
    assert re.search(r"^  PATH    Pictures", run("predict --help")[1], re.MULTILINE)


@pytest.mark.parametrize("command", ["", *command_names(typer.main.get_command(app)), "data"])
def test_h_is_short_for_help(run: Run, command: str) -> None:
    assert run(f"{command} -h") == run(f"{command} --help")


def test_the_help_tells_the_way_from_data_to_a_prediction(run: Run) -> None:
    out = run("--help")[1]
    steps = ("data check", "search", "status", "export", "predict")
    places = [out.index(f"\n    hpsearch {step} ") for step in steps[:2]]
    places += [out.index(f"\n    hpsearch {step}") for step in steps[2:]]
    assert places == sorted(places)
    assert max(map(len, out.splitlines())) <= 80
    assert "..." not in out.partition("Commands:")[2].partition("\n\n")[0]  # no summary is cut off
    assert {"HPSEARCH_CACHE", "HPSEARCH_STORAGE"} <= set(re.findall(r"\w+", out))


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("search --lr 0.1", "No such option: --lr (it is a parameter: --set lr=VALUE)"),
        ("search --learning-rate=0.1", "--set lr=VALUE"),
        ("space cnn --kernel 3", "--set kernel=VALUE"),
        ("search --trails 3", "--trials"),
        ("data inspect --data photos", "inspect SRC"),
    ],
)
def test_of_an_option_that_there_is_not_it_is_said_what_was_meant(
    run: Run, command: str, told: str
) -> None:
    code, out, err = run(command)
    assert (code, out) == (2, "")
    assert told in err


def test_evaluate_takes_no_shape(run: Run) -> None:
    """An export knows what its images are brought to."""
    out = run("evaluate --help")[1]
    assert "--with" in out
    for name in ("size", "fit", "gray", "rgb"):
        assert f"--{name}" not in out
        assert f"--{name}" in run("data inspect --help")[1]
