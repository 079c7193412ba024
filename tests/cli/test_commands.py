"""The command line as a user meets it: real commands on real folders."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import typer

from hpsearch import StudySpec, load_search
from hpsearch.cli.main import app, main
from hpsearch.engine.place import DATABASE

Run = Callable[[str], tuple[int, str, str]]
COMMANDS = {
    *(
        "search",
        "worker",
        "status",
        "dashboard",
        "export",
        "report",
        "data",
        "check",
        "families",
        "space",
    ),
    *("compare", "retrain", "predict", "evaluate", "ablate"),
}
SMALL = "--family logistic --family mlp --trials 4 --epochs 2"


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_the_main_job_from_search_to_export(run: Run, tmp_path: Path) -> None:
    code, out, err = run(f"search {SMALL}")
    assert (code, err) == (0, "")
    assert "360 test images sealed" in out
    assert re.search(r"one epoch .*: logistic .* ms, mlp .* ms", out)
    assert re.search(r"4 trials to do: about .* without pruning", out)
    assert len(re.findall(r"^\[\d/4\] ", out, flags=re.MULTILINE)) == 4
    assert "hpsearch export digits" in out
    assert "has not been opened yet" in out

    code, out, err = run(f"search {SMALL}")
    assert (code, err) == (0, "")
    assert "4 finished trials" in out
    assert "--trials" in out
    assert "[" not in out.split("search digits: families")[0]

    code, out, _ = run(f"search {SMALL.replace('--trials 4', '--trials 6')}")
    assert code == 0
    assert len(re.findall(r"^\[\d/6\] ", out, flags=re.MULTILINE)) == 2

    code, out, _ = run("export")
    assert code == 0
    paths = [Path(line.split()[-1]) for line in out.splitlines() if "exports" in line]
    assert [path.name for path in paths] == [
        "report.html",
        "confusion_matrix.png",
        "predictions.csv",
        "mistakes.png",
        "learning_curves.png",
        "model.pt",
        "model.pt2",
        "PATH...",
    ]
    folder = Path("exports/digits")
    assert all(path.is_file() and path.parent == folder for path in paths[:-1])
    accuracy = json.loads((folder / "metrics.json").read_text())["test"]["accuracy"]
    assert f"{accuracy:.2%}".replace("%", " %") in out

    code, out, err = run("export")
    assert code == 2
    assert "--force" in err
    assert run("export --force")[0] == 0
    assert run("export digits --trial logistic-0")[0] == 0
    assert Path("exports/digits-logistic-0/model.pt").is_file()

    code, out, _ = run("report")
    assert code == 0
    assert "opened 3 times" in out
    code, out, _ = run("report digits --json --best 2")
    (document,) = json.loads(out)["searches"]
    assert document["trials"] == {"asked": 6, "finished": 6}
    assert len(document["best_trials"]) == 2
    assert len(document["test_openings"]) == 3


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one finished search, which the tests below do not change."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.raises(SystemExit):
        main([*shlex.split(f"search {SMALL} --runs"), str(folder)])
    return folder


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        ("search --family resnext", ["'resnext'", "cnn, logistic, mlp", ".py"]),
        ("search --family nothing.py", ["nothing.py", "cnn, logistic, mlp"]),
        ("search --data nothing", ["'nothing'", "digits", "FILE.npz", "data list"]),
        ("search --data nothing.npz", ["nothing.npz", "does not exist"]),
        ("search --set lr=5000", ["lr", "5000", "1e-12 to 1000"]),
        ("search --set lr=1e-99..1e-2", ["lr", "1e-99..0.01"]),
        ("search --set weight_decay=0..1e-2", ["weight_decay", "log scale", "0..0.01"]),
        ("search --set cnn.layers=2", ["'cnn.layers'", "blocks"]),
        ("search --set weights=nothing", ["'nothing'", "no such file"]),
        ("search --set dropout_rates=0.5 --set dropout_epochs=1/2", ["as many as rates"]),
        ("search --set widths=search", ["widths", "widths=256/128"]),
        ("search --set speed=5", ["'speed'", "batch_size"]),
        ("search --set optimizer=lion", ["'lion'", "adamw, sgd"]),
        ("search --set lr", ["'lr'", "NAME=VALUE"]),
        ("search --set lr=0.01 --set lr=0.02", ["lr", "twice"]),
        ("search --set optimizer=adamw --set momentum=0.5", ["'momentum'", "leave it out"]),
        ("search --seed 99999999999999999999999", ["seed", "99999999999999999999999"]),
        ("search --split-seed 5000000000", ["seed", "5000000000"]),
        ("search --name hpsearch.db", ["'hpsearch.db'", "--name"]),
        ("search --data tiny.npz", ["2x2", "1x1", "logistic"]),
        ("search tiny.npz", ["tiny.npz", "no study file", "--data"]),
        ("search photos", ["photos is no study file", "--data photos"]),
        ("search --memory-format nhwc", ["error: --memory-format must be auto,", "'nhwc'"]),
        ("search --on-error maybe", ["error: --on-error must be fail or skip", "'maybe'"]),
        ("search --set epochs=-1", ["error: epochs must"]),
        ("search --data folder.d", ["folder.d", "no images"]),
        ("search exits.py", ["exits.py", "SystemExit"]),
        ("search --dry-run --runs in_the_way/runs", ["in_the_way", "cannot be written"]),
        (f"search --dry-run {SMALL} --runs RUNS --epochs 3", ["epochs (2 then, 3 now)"]),
        ("search --trials 0", ["trials", "0"]),
        ("search --epochs -3", ["epochs", "-3"]),
        ("search --name ../up", ["'../up'", "--name"]),
        ("search --precision fp7", ["precision", "'fp7'"]),
        ("search --checkpoint-every -1", ["--checkpoint-every", "-1"]),
        ("search --non-finite stop", ["--non-finite", "'stop'"]),
        ("search --artifacts some", ["artifacts", "all, best or none", "'some'"]),
        (
            "search --objective accuracy",
            ["'accuracy'", "val_accuracy, val_balanced_accuracy, val_macro_f1, val_loss"],
        ),
        ("search --device tpu", ["'tpu'", "cuda:N"]),
        ("search --device cuda:99", ["'cuda:99'", "cpu"]),
        ("search nothing.py", ["nothing.py", "no such file"]),
        ("search raises.py", ["raises.py, line 2", "ZeroDivisionError"]),
        ("search --runs in_the_way/runs", ["in_the_way", "cannot be written", "--runs"]),
        ("report", ["no searches in runs", "hpsearch search"]),
        ("report --runs RUNS nothing", ["'nothing'", "digits"]),
        ("export --runs RUNS nothing", ["'nothing'", "digits"]),
        ("export --runs RUNS --trial mlp-99", ["'mlp-99'"]),
        ("export --runs RUNS -o in_the_way", ["in_the_way", "exists already"]),
        ("export --runs RUNS -o in_the_way/out", ["in_the_way", "cannot be written"]),
        ("dashboard", ["no searches in runs"]),
        (
            f"search {SMALL} --runs RUNS --epochs 3",
            ["epochs (2 then, 3 now)", "hpsearch worker digits", "--name digits-2"],
        ),
        (f"search {SMALL} --runs RUNS --split-seed 3", ["split", "--name digits-2"]),
        (
            f"search {SMALL} --runs RUNS --objective val_loss",
            ["objective (val_accuracy then, val_loss now)", "--name digits-2"],
        ),
        (
            f"search {SMALL} --runs RUNS --set lr=1e-3",
            ["lr (not given then, 0.001 now)", "--name digits-2"],
        ),
    ],
)
def test_bad_input_gets_one_line_and_leaves_nothing(
    run: Run, runs: Path, tmp_path: Path, command: str, parts: list[str]
) -> None:
    (tmp_path / "raises.py").write_text("x = 0\ny = 1 / x\n")
    (tmp_path / "exits.py").write_text("raise SystemExit\n")
    (tmp_path / "in_the_way").write_text("a file")
    (tmp_path / "folder.d").mkdir()
    np.savez(tmp_path / "tiny.npz", images=np.zeros((60, 1, 1), np.uint8), labels=np.arange(60) % 2)
    before, record = files(tmp_path), load_search(runs)
    code, out, err = run(command.replace("RUNS", str(runs)))
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for part in parts:
        assert part in err
    assert files(tmp_path) == before
    assert load_search(runs) == record


def test_a_search_without_a_finished_trial_cannot_be_exported(run: Run) -> None:
    code, out, _ = run(
        "search --family mlp --trials 1 --epochs 2 --set optimizer=sgd --set lr=0.5 "
        "--set momentum=0.99 --set batch_norm=no --set layers=4 --set batch_size=16 --set width=512"
    )
    assert code == 1
    assert "nothing to export" in out
    code, _, err = run("export")
    assert code == 2
    assert "no complete trial yet (1 failed)" in err
    assert not Path("exports").exists()
    code, out, _ = run("report")
    assert code == 0
    assert "mlp-0 failed: the loss is not finite" in out


def test_a_dry_run_estimates_and_writes_nothing(run: Run, tmp_path: Path) -> None:
    code, out, _ = run(f"search {SMALL} --dry-run")
    assert code == 0
    assert re.search(r"one epoch .*: logistic .* ms, mlp .* ms", out)
    assert "4 trials to do" in out
    assert files(tmp_path) == []
    first, *others = out.splitlines()
    assert first.startswith("search digits, on digits: 8x8x1, 10 classes, 1,077 train + 360 valid")
    assert "4 trials of 2 epochs, chosen by tpe, pruned by median, ranked by val_accuracy" in others
    assert any(re.match(r"logistic: 8 parameters searched: .*\blr\b", line) for line in others)
    # It is about the workers that there would be.
    _, out, _ = run(f"search {SMALL} --dry-run --workers 2")
    assert "\n2 workers with 1 thread each\n" in out
    assert re.search(r"\n4 trials to do: about .* by 2 workers without pruning\n", out)
    code, _, err = run(f"search {SMALL} --dry-run --devices cpu,cuda:99")
    assert code == 2
    assert "cuda:99" in err
    # A search says the same of its data.
    _, out, _ = run(f"search {SMALL}")
    assert out.splitlines()[0] == first


def test_options_change_what_a_study_file_says(run: Run, tmp_path: Path) -> None:
    (tmp_path / "study.py").write_text(
        "from hpsearch import StudySpec\n"
        "study = StudySpec(name='mine', families=('logistic',), trials=9, epochs=1, keep=2,\n"
        "                  overrides={'batch_size': 64, 'optimizer': 'sgd'})\n"
    )
    code, _, _ = run("search study.py --trials 2 --seed 7 --split-seed 3 --set batch_size=128")
    assert code == 0
    record = load_search("runs", "mine")
    assert (record.spec["seed"], record.spec["split"]["seed"], record.spec["keep"]) == (7, 3, 2)
    assert len(record.trials) == 2
    for trial in record.trials:
        assert trial.config is not None
        assert trial.config.batch_size == 128
        assert trial.config.optimizer.name == "sgd"


def test_a_users_own_images_from_a_file(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 60)
    images = rng.integers(0, 100, (120, 12, 16, 3), dtype=np.uint8)
    images[labels == 1, :, :, 0] += 120  # the second class is redder
    np.savez(tmp_path / "red.npz", images=images, labels=labels, classes=["=plain", "red <b>"])
    assert run("search --data red.npz --family cnn --trials 1 --epochs 3")[0] == 0
    code, out, _ = run("export")
    assert code == 0
    assert "search red" in out
    with Path("exports/red/confusion_matrix.csv").open() as file:
        assert file.readline() == ",predicted =plain,predicted red <b>\n"
    assert json.loads(Path("exports/red/metrics.json").read_text())["test"]["accuracy"] > 0.9


def test_help_of_every_command_and_option() -> None:
    commands = dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    assert set(commands) == COMMANDS
    below = commands["data"].commands
    assert set(below) == {"list", "inspect", "preview", "check", "convert"}
    commands |= {f"data {name}": command for name, command in below.items()}
    for name, command in commands.items():
        assert command.help, name
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{name} {parameter.name}"


def test_the_help_tells_what_it_is_for_and_lists_the_commands(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert "best image classifier" in out
    for command in COMMANDS:
        assert re.search(rf"^\s+{command}\s+\w", out, flags=re.MULTILINE)
    code, out, _ = run("--version")
    assert (code, out) == (0, f"hpsearch {metadata.version('hpsearch')}\n")


def test_defaults_live_in_the_specification_alone() -> None:
    """The command's options default to None, so that a study file or the default is asked."""
    search = typer.main.get_command(app).commands["search"]  # type: ignore[attr-defined]
    defaults = {p.name: p.default for p in search.params}
    for name in ("trials", "epochs", "seed", "keep", "data", "name", "precision", "objective"):
        assert hasattr(StudySpec(), name)
        assert defaults[name] is None
    for name in ("size", "fit", "gray", "on_error", "exclude", "split", "split_seed"):
        assert defaults[name] is None


def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(tmp_path: Path) -> None:
    arguments = shlex.split(
        "search --family logistic --trials 40 --epochs 30 --name stopped --workers 0"
    )
    command = [sys.executable, "-c", "from hpsearch.cli.main import main; main()", *arguments]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    while not process.stdout.readline().startswith("[2/40]"):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == ""
    assert "To go on: hpsearch search --family logistic --trials 40 --epochs 30" in out
    record = load_search(tmp_path / "runs", "stopped")
    assert 2 <= record.count("complete") + record.count("pruned") < 40


def test_the_live_view_on_a_terminal(tmp_path: Path) -> None:
    """A real pseudo-terminal: what it draws has the counts, the running and the best trial."""
    pty = pytest.importorskip("pty", reason="no pseudo-terminals on this system")
    parent, child = pty.openpty()
    arguments = shlex.split(f"search {SMALL.replace('--epochs 2', '--epochs 20')} --workers 0")
    process = subprocess.Popen(
        [sys.executable, "-c", "from hpsearch.cli.main import main; main()", *arguments],
        cwd=tmp_path,
        stdin=child,
        stdout=child,
        stderr=child,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"},
    )
    os.close(child)
    chunks = []
    while True:
        try:
            chunk = os.read(parent, 65536)
        except OSError:  # Linux tells the end like this
            break
        if not chunk:
            break
        chunks.append(chunk)
    assert process.wait(timeout=60) == 0
    screen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", b"".join(chunks).decode())
    assert "4/4 trials" in screen
    assert re.search(r"running\s+(mlp|logistic)-\d\s+epoch \d+/20\s+validation \d", screen)
    assert re.search(r"best\s+(mlp|logistic)-\d\s+validation \d\d\.\d\d %", screen)
    assert re.search(r"about .* left", screen)
    assert "optimizer adamw" in screen
    assert re.search(r"one epoch .*: logistic .* ms, mlp .* ms", screen)
    assert re.search(r"4 trials to do: about .* without pruning", screen)


def test_a_damaged_database_is_an_error_of_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / DATABASE).write_bytes(os.urandom(5000))
    for command in ("search", "report", "export", "dashboard"):
        code, _, err = run(command)
        assert code == 2
        assert err.count("\n") == 1
        assert DATABASE in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_output_that_cannot_be_written_is_told_in_a_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", "from hpsearch.cli.main import main; main()", "families"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "error: the output cannot be written: No space left on device\n"
