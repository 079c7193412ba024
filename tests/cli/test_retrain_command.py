"""`hpsearch retrain` as a user meets it."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hpsearch import SearchRecord, StudySpec, load_search, search
from hpsearch.data.store import load_dataset
from hpsearch.results import bundle
from hpsearch.results.retraining import seed_job

Run = Callable[[str], tuple[int, str, str]]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> SearchRecord:
    folder = tmp_path_factory.mktemp("searched")
    digits = load_dataset("digits")
    np.savez(folder / "few.npz", images=digits.images[:300], labels=digits.labels[:300])
    spec = StudySpec(
        data=str(folder / "few.npz"),
        families=("logistic",),
        trials=3,
        epochs=2,
        keep=1,
        pruner="none",
    )
    return search(spec, runs=folder / "runs", device="cpu", workers=0)


@pytest.fixture(autouse=True)
def _copied(
    run: Run, searched: SearchRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search's runs in the folder of the commands; an export's slow forms left out."""
    shutil.copytree(searched.runs, tmp_path / "runs")
    monkeypatch.setattr(bundle, "write_program", lambda *_, **__: None)
    monkeypatch.setattr(bundle, "write_figures", lambda *_, **__: {})


def test_retrain_prints_what_a_user_wants_to_know(run: Run) -> None:
    code, out, err = run("retrain few --seeds 2 --device cpu")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == ["seed 1 of 2", "seed 2 of 2"]
    assert "(kept)" in out
    assert "± " in out
    assert "opened once, counting all" in out
    assert "to the bit" in out
    assert Path("exports/few-retrained/seeds.csv").is_file()
    # Again: not without --force.
    code, out, err = run("retrain few --seeds 1 --device cpu")
    assert (code, out) == (2, "")
    assert "--force" in err
    assert err.count("\n") == 1
    code, out, _ = run("retrain few --seeds 1 --device cpu --force")
    assert code == 0
    assert "opened 2 times, counting all" in out
    assert "±" not in out


def test_a_trial_on_both_parts_to_a_folder_of_its_own(run: Run) -> None:
    code, out, _ = run("retrain --trial logistic-1 --seeds 2 --on train+val --epochs 1")
    assert code == 0
    assert "training loss" in out  # in the place of a validation score
    assert "nan" not in out
    assert Path("exports/few-logistic-1-retrained/model.pt").is_file()
    assert run("retrain --trial logistic-1 --seeds 1 -o mine/deep")[0] == 0
    assert Path("mine/deep/retrain.json").is_file()


def test_top_shows_the_search_beside_the_folds(run: Run) -> None:
    code, out, _ = run("retrain --top 2 --folds 2 --seeds 1 --device cpu")
    assert code == 0
    assert "fold 1 of 2, logistic-" in out
    assert "in the search" in out
    assert "on the folds" in out
    assert "note: The search's best, logistic-" in out
    assert Path("exports/few-retrained/candidates.csv").is_file()
    assert len(load_search("runs").openings) == 1


def test_ctrl_c_writes_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(seed_job, "_tell_epoch", stop)
    code, out, _ = run("retrain few --seeds 2 --device cpu")
    assert code == 130
    assert "stopped; nothing was written" in out
    assert list(Path("exports").iterdir()) == []
    assert load_search("runs").openings == ()


@pytest.mark.parametrize(
    ("signals", "expected"),
    [([signal.SIGINT] * 4, 130), ([signal.SIGTERM] * 2, 143)],
    ids=["impatient", "terminated"],
)
def test_signals_leave_nothing_behind(signals: list[signal.Signals], expected: int) -> None:
    """In a process of its own, while it trains; nor is there a traceback."""
    code = "import sys; from hpsearch.cli.main import main; main(sys.argv[1:])"
    command = "retrain few --seeds 9 --epochs 50000 --device cpu"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *command.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        until = time.monotonic() + 60
        while not list(Path().glob("exports/.few-retrained.*/.seeds")):
            assert time.monotonic() < until
            assert process.poll() is None
            time.sleep(0.05)
        for number in signals:
            process.send_signal(number)
            time.sleep(0.02)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, err.decode()) == (expected, "")
    assert out.decode() == ("stopped; nothing was written\n" if expected == 130 else "")
    assert list(Path("exports").iterdir()) == []
    assert load_search("runs").openings == ()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("retrain --seeds 0", "seeds must be a whole number of at least 1, but is 0"),
        ("retrain --epochs 0", "epochs must be a whole number of at least 1"),
        ("retrain --on test", "on must be one of train, train+val, but is 'test'"),
        ("retrain --top 0", "top must be a whole number of at least 1, but is 0"),
        ("retrain --top 2 --folds 1", "folds must be a whole number of at least 2, but is 1"),
        ("retrain --top 2 --folds 0", "folds must be a whole number of at least 2, but is 0"),
        ("retrain --folds 3", "--folds is for --top"),
        ("retrain --top 2 --trial logistic-0", "leave out --trial"),
        ("retrain --top 2 --epochs 3", "leave out --epochs"),
        ("retrain --trial logistic-99", "has no trial 'logistic-99'"),
        ("retrain elsewhere", "no search 'elsewhere'"),
        ("retrain --device abacus", "unknown device 'abacus'"),
        ("retrain -o runs", "runs exists already (it is no export of ours)"),
    ],
)
def test_bad_input_is_one_line(run: Run, command: str, message: str) -> None:
    code, out, err = run(command)
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not Path("exports").exists()
    assert load_search("runs").openings == ()
