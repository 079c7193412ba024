"""`hpsearch dashboard` as a user meets it."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import webbrowser
from pathlib import Path
from types import SimpleNamespace

import pytest

from hpsearch.cli import dashboard as command
from hpsearch.cli.main import main
from hpsearch.engine.place import Place

PROGRAM = [sys.executable, "-c", "from hpsearch.cli.main import main; main()", "dashboard"]


def start(place: Place, options: str = "", **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*PROGRAM, "--runs", str(place.runs), *shlex.split(options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **env},
    )


def lines(process: subprocess.Popen[str]) -> list[str]:
    """What it prints until it is ready."""
    assert process.stdout is not None
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    found = [process.stdout.readline()]
    while found[-1] and "Ctrl-C" not in found[-1]:
        found.append(process.stdout.readline())
    watchdog.cancel()
    assert found[-1], process.communicate(timeout=30)
    return [line.rstrip() for line in found]


def test_it_says_where_it_is_and_stops_at_ctrl_c(shown: Place) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = start(shown, f"digits --port {port} --no-browser")
        try:
            said = lines(process)
            own = int(re.findall(r":(\d+)/dashboard$", said[1])[0])
            assert said == [
                f"Port {port} is taken; this is port {own}.",
                f"optuna-dashboard on http://127.0.0.1:{own}/dashboard",
                f"Search digits, family mlp: http://127.0.0.1:{own}/dashboard/studies/2",
                "This machine only; nothing can be changed. Ctrl-C stops it.",
            ]
            with urllib.request.urlopen(f"http://127.0.0.1:{own}/api/studies") as answer:
                assert len(json.load(answer)["study_summaries"]) == 2
        finally:
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "stopped\n", "")
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", own)) != 0


def test_for_other_machines_the_address_has_the_token_and_sigterm_stops_it(shown: Place) -> None:
    process = start(shown, "--port 0 --host 0.0.0.0 --allow-write", HPSEARCH_TOKEN="a secret word")
    try:
        said = lines(process)
        address = said[0].split()[-1]
        assert address.endswith("/dashboard?token=a%20secret%20word")
        assert said[-1].startswith("Other machines, too, unencrypted; visitors may change")
        port = address.split(":")[2].split("/")[0]
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies")
    finally:
        process.terminate()
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (143, "stopped\n", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", "no searches in"),
        ("--runs RUNS nothing", "no search 'nothing'"),
        ("--runs RUNS --host 203.0.113.1", "203.0.113.1"),
        ("--runs RUNS --token short", "--token"),
        ("--runs RUNS --allow-host http://x", "--allow-host"),
    ],
)
def test_bad_input_gets_one_line(
    shown: Place,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: str,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["dashboard", *shlex.split(arguments.replace("RUNS", str(shown.runs)))])
    out, err = capsys.readouterr()
    assert (caught.value.code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert words in err


def test_help_imports_neither_the_dashboard_nor_torch() -> None:
    code = (
        "import sys; from hpsearch.cli.main import main\n"
        "try: main(['dashboard', '--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'optuna', 'waitress') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("[]")
    assert "--no-browser" in done.stdout


@pytest.mark.parametrize(
    ("name", "env", "opened"),
    [
        ("firefox", {"DISPLAY": ":0"}, True),
        ("xdg-open", {"WAYLAND_DISPLAY": "wayland-0"}, True),
        ("/usr/share/code/bin/helpers/browser.sh", {"BROWSER": "browser.sh"}, True),
        ("firefox", {}, False),
        ("w3m", {"DISPLAY": ":0"}, False),
        ("/usr/bin/lynx", {"BROWSER": "/usr/bin/lynx"}, False),
        ("www-browser", {"DISPLAY": ":0"}, False),
        (None, {"DISPLAY": ":0"}, False),
    ],
)
def test_a_browser_without_windows_is_not_opened(
    monkeypatch: pytest.MonkeyPatch, name: str | None, env: dict[str, str], opened: bool
) -> None:
    for variable in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in env.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(command.sys, "platform", "linux")
    asked: list[str] = []
    called = threading.Event()

    def get() -> SimpleNamespace:
        if name is None:
            raise webbrowser.Error("could not locate runnable browser")
        return SimpleNamespace(name=name, open=lambda url: (asked.append(url), called.set()))

    monkeypatch.setattr(webbrowser, "get", get)
    server = SimpleNamespace(page=SimpleNamespace(path="/p"), address=lambda p, here: f"{p} {here}")
    command._open_browser(server)  # type: ignore[arg-type]
    assert called.wait(10 if opened else 0.1) is opened
    assert asked == (["/p True"] if opened else [])
