"""A worker process: `python -m hpsearch.engine.worker_process`, started by the supervisor.

Its job and the wish to stop come through its standard input, what happens goes out through its
standard output (events, pickled), and what anything prints to the log that is its standard error.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
import time
from typing import IO, Any

import torch
import torch._dynamo  # optimizers import it, for seconds: better while the search is set up

from hpsearch.engine.database import open_storage, storage_errors, wait_for_server
from hpsearch.engine.events import DatabaseAway
from hpsearch.engine.existing import peek, stored_paces
from hpsearch.engine.open_trials import BEATS
from hpsearch.engine.setup import prepare_data
from hpsearch.engine.stop import HANDED_BACK, Stop, stopped_by_signals
from hpsearch.engine.studies import load_studies
from hpsearch.engine.work import work
from hpsearch.engine.worker import Worker
from hpsearch.engine.worker_messages import LENGTH, STOP, Alive, Done, Job, Refusal
from hpsearch.errors import HpsearchError, SearchError
from hpsearch.names import family_label
from hpsearch.training.device import resolve_device
from hpsearch.training.memory import keep_freed_memory

EXIT_REFUSED = 2
_STDIN = 0


class _Out:
    """Sends events to the supervisor; where that is gone, to nobody."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def send(self, event: Any) -> None:
        """Sends one."""
        with self._lock:
            try:
                pickle.dump(event, self._stream)
                self._stream.flush()
            except (OSError, ValueError):
                pass


def main() -> int:
    """Does the job that comes in; the exit code."""
    out = _Out(os.fdopen(os.dup(sys.stdout.fileno()), "wb"))
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    message = _read(int.from_bytes(_read(LENGTH)))
    if not message:  # the supervisor changed its mind
        return 0
    job: Job = pickle.loads(message)  # noqa: S301 - of the supervisor
    stop = Stop()
    threading.Thread(target=_listen, args=(stop,), daemon=True).start()
    threading.Thread(target=_beat, args=(out, job.grace / BEATS), daemon=True).start()
    try:
        with storage_errors(job.place), stopped_by_signals(stop, lambda: None):
            run(job, stop, out)
    except HpsearchError as error:
        out.send(Refusal(text=str(error)))
        return EXIT_REFUSED
    out.send(Done())
    return 0


def _read(count: int) -> bytes:
    """So many bytes of the standard input, or none where it ends before.

    Without Python's buffer: a thread that waits in there cannot be left behind at the end.
    """
    read = b""
    while len(read) < count:
        part = os.read(_STDIN, count - len(read))
        if not part:
            return b""
        read += part
    return read


def _listen(stop: Stop) -> None:
    """Waits for the wish to stop, or for the supervisor's end."""
    told = os.read(_STDIN, len(STOP))
    stop.request(HANDED_BACK if told == STOP else "its supervisor is gone")


def _beat(out: _Out, every: float) -> None:
    """Shows the supervisor that this process moves, even while it waits for the database."""
    while True:
        out.send(Alive())
        time.sleep(every)


def run(job: Job, stop: Stop, out: _Out) -> None:
    """Reads the search that exists, and works in it."""
    spec, place = job.spec, job.place
    keep_freed_memory()
    torch.set_num_threads(job.threads)
    wait_for_server(place)  # it may be away just when this worker is started again
    existing = peek(place, spec.name)
    if existing is None:
        raise SearchError(f"search {spec.name!r} was deleted from {place}")
    data = prepare_data(spec, existing, place, look=False)
    storage = open_storage(place, write=True)
    storage.tell_away = lambda away: out.send(DatabaseAway(worker=job.number, away=away))
    paces = stored_paces(existing)
    device = resolve_device(job.device)
    worker = Worker(
        spec=spec,
        place=place,
        data=data.views(device),
        fingerprints=data.fingerprints,
        device=device,
        paces={family: paces[family_label(family)] for family in spec.families},
        watch=out.send,
        stop=stop,
        number=job.number,
    )
    studies = load_studies(spec, data, storage, place=place, marks=False)
    work(worker, studies, storage, job.owner, grace=job.grace)


if __name__ == "__main__":
    sys.exit(main())
