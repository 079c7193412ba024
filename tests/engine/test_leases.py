"""Leases on trials, over both databases and by many processes."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy import select, text, update
from sqlalchemy.exc import OperationalError

from hpsearch.engine import leases as leases_module
from hpsearch.engine import storage as storage_module
from hpsearch.engine.database import create_storage, open_storage
from hpsearch.engine.lease_table import LEASES, Lease, LeaseLostError
from hpsearch.engine.leases import (
    Claim,
    Leases,
    Nothing,
    Share,
    release_dead,
    resume,
)
from hpsearch.engine.open_trials import end_times, idle_trials
from hpsearch.engine.place import Place
from hpsearch.engine.presence import dead, forget_dead, new_owner, present
from hpsearch.engine.states import ASIDE, DUPLICATE, INFEASIBLE, most_aside, trial_state
from hpsearch.engine.storage import SearchStorage, quiet_optuna

Together = Callable[..., list[list[Any]]]
_GRACE = 60.0


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    url = request.getfixturevalue("pg_url") if request.param == "postgres" else None
    return Place.of(tmp_path, url)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """Studies with nothing in them, by family, and workers that run their trials."""

    place: Place
    storage: SearchStorage
    studies: dict[str, optuna.Study]
    shares: dict[str, Share]

    @classmethod
    def of(cls, place: Place, **trials: int) -> Search:
        storage = create_storage(place)
        with quiet_optuna():
            studies = {
                name: optuna.create_study(study_name=name, storage=storage, direction="maximize")
                for name in trials
            }
        shares = {
            name: Share(study_id=study._study_id, trials=trials[name])
            for name, study in studies.items()
        }
        return cls(place=place, storage=storage, studies=studies, shares=shares)

    def worker(self, owner: str = "") -> Worker:
        storage = open_storage(self.place, write=True)
        studies = {
            name: optuna.load_study(study_name=name, storage=storage, sampler=_sampler())
            for name in self.shares
        }
        return Worker(self, storage, studies, owner or new_owner())

    def age(self, lease: Lease, seconds: float = _GRACE + 1) -> None:
        """As if the owner had given no sign of life for so long."""
        with self.storage.engine.begin() as connection:
            connection.execute(
                update(LEASES)
                .where(LEASES.c.trial_id == lease.trial_id)
                .values(beat=LEASES.c.beat - seconds)
            )

    def row(self, lease: Lease) -> sqlalchemy.Row[Any]:
        with self.storage.engine.begin() as connection:
            return connection.execute(
                select(LEASES).where(LEASES.c.trial_id == lease.trial_id)
            ).one()

    def trials(self, family: str) -> list[optuna.trial.FrozenTrial]:
        study = optuna.load_study(study_name=family, storage=open_storage(self.place))
        return study.get_trials()


class Worker:
    """One worker, with its own connection."""

    def __init__(
        self, search: Search, storage: SearchStorage, studies: dict[str, optuna.Study], owner: str
    ) -> None:
        self.search = search
        self.storage = storage
        self.studies = studies
        self.leases = Leases(storage, search.place, owner, grace=_GRACE)

    def asks(self, *, attempts: int = 2, **closed: bool) -> Claim | Nothing:
        shares = {
            name: dataclasses.replace(share, closed=closed.get(name, False))
            for name, share in self.search.shares.items()
        }
        return self.leases.claim(shares, attempts=attempts)

    def claim(self, *, attempts: int = 2) -> Claim:
        claim = self.asks(attempts=attempts)
        assert isinstance(claim, Claim), claim
        return claim

    def trial(self, claim: Claim) -> optuna.Trial:
        study = self.studies[claim.family]
        study._thread_local.cached_all_trials = None
        study.get_trials(deepcopy=False)
        return optuna.Trial(study, claim.lease.trial_id)

    def finish(self, claim: Claim, value: float | None = 1.0, aside: str = "") -> None:
        trial = self.trial(claim)
        with self.leases.kept(claim.lease, every=60):
            if aside:
                trial.set_user_attr(aside, "for some reason")
                self.studies[claim.family].tell(trial, state=TrialState.FAIL)
            else:
                self.studies[claim.family].tell(trial, value)


def _sampler() -> optuna.samplers.BaseSampler:
    return optuna.samplers.RandomSampler(seed=0)


def toil(place: Place, shares: dict[str, Share]) -> list[tuple[int, int]]:
    """Runs trials until there are none: some never train, the others report and are told.

    Returns:
        The leases that it had.
    """
    search = Search(place=place, storage=open_storage(place, write=True), studies={}, shares=shares)
    worker, had = search.worker(), []
    with present(place, worker.leases.owner):
        while True:
            claim = worker.asks()
            if isinstance(claim, Nothing):
                if not claim.running:
                    return had
                time.sleep(0.02)
                continue
            had.append((claim.lease.trial_id, claim.lease.token))
            trial = worker.trial(claim)
            with worker.leases.kept(claim.lease, every=1):
                chance = random.Random(trial.number).random()
                time.sleep(chance * 0.01)
                if chance < 0.2:
                    trial.set_user_attr(INFEASIBLE if chance < 0.1 else DUPLICATE, "so it is")
                    worker.studies[claim.family].tell(trial, state=TrialState.FAIL)
                else:
                    trial.report(chance, 0)
                    worker.studies[claim.family].tell(trial, chance)


def test_the_budget_is_exact_however_many_workers_there_are(
    place: Place, together: Together
) -> None:
    search = Search.of(place, a=34, b=33, c=33)
    had = [lease for leases in together(8, toil, place, search.shares) for lease in leases]
    assert set(Counter(had).values()) == {1}
    assert {token for _, token in had} == {1}
    for family, share in search.shares.items():
        trials = search.trials(family)
        states = Counter(trial_state(trial) for trial in trials)
        assert states["complete"] == share.trials
        assert sum(states[state] for state in ASIDE) == len(trials) - share.trials > 0
        assert [trial.number for trial in trials] == list(range(len(trials)))


def pick(place: Place, shares: dict[str, Share]) -> list[float]:
    """Claims trials until there are none; what they were enqueued with."""
    search = Search(place=place, storage=open_storage(place, write=True), studies={}, shares=shares)
    worker, had = search.worker(), []
    while isinstance(claim := worker.asks(), Claim):
        had.append(worker.trial(claim).suggest_float("x", 0, 1000))
        worker.leases.hand_back(claim.lease, "to see the next", pause=True)
    return had


def test_each_waiting_trial_is_claimed_once(place: Place, together: Together) -> None:
    search = Search.of(place, a=100)
    for number in range(100):
        search.studies["a"].enqueue_trial({"x": float(number)})
    had = [value for values in together(8, pick, place, search.shares) for value in values]
    assert sorted(had) == list(map(float, range(100)))


def test_the_family_that_has_had_the_fewest_is_next(place: Place) -> None:
    search = Search.of(place, a=3, b=2, c=1)
    workers = [search.worker() for _ in range(6)]
    claims = [worker.claim() for worker in workers]
    assert [claim.family for claim in claims] == ["a", "b", "c", "a", "b", "a"]
    assert [claim.lease.token for claim in claims] == [1] * 6
    assert search.worker().asks() == Nothing(running=6)
    workers[1].finish(claims[1])  # one of b, which stays one that b has had
    assert search.worker().asks() == Nothing(running=5)
    workers[2].finish(claims[2], aside=INFEASIBLE)  # which c has not had
    assert search.worker().claim().family == "c"


def test_waiting_trials_are_claimed_in_their_order_and_before_new_ones(place: Place) -> None:
    search = Search.of(place, a=3)
    for x in (5.0, 3.0):
        search.studies["a"].enqueue_trial({"x": x})
    drawn = []
    for _ in range(3):
        worker = search.worker()
        claim = worker.claim()
        drawn.append(worker.trial(claim).suggest_float("x", 0, 200))
    trials = search.trials("a")
    assert drawn == [5.0, 3.0, trials[2].params["x"]]
    assert [trial.number for trial in trials] == [0, 1, 2]
    assert all(trial.datetime_start is not None for trial in trials)


def test_a_closed_family_begins_nothing_but_what_was_lost_goes_on(place: Place) -> None:
    search = Search.of(place, a=2)
    worker = search.worker()
    claim = worker.claim()
    assert search.worker().asks(a=True) == Nothing(running=1)
    worker.leases.hand_back(claim.lease, "stopped")
    assert isinstance(adopted := search.worker().asks(a=True), Claim)
    assert adopted.lease == Lease(trial_id=claim.lease.trial_id, token=2)


def test_a_family_is_given_up_when_too_many_never_train(place: Place) -> None:
    search = Search.of(place, a=1)
    worker = search.worker()
    for _ in range(most_aside(1)):
        worker.finish(worker.claim(), aside=DUPLICATE)
    assert worker.asks() == Nothing(running=0)


def test_what_is_left_of_a_family_that_has_all_its_trials_keeps_nobody_waiting(
    place: Place,
) -> None:
    search = Search.of(place, a=2, b=1)
    first, second, third = (search.worker() for _ in range(3))
    done, _, last = first.claim(), second.claim(), third.claim()
    first.finish(done)
    third.leases.hand_back(last.lease, "stopped")
    fewer = {**search.shares, "a": dataclasses.replace(search.shares["a"], trials=1)}
    answer = search.worker().leases.claim(fewer, attempts=2)
    assert answer == Nothing(running=1)  # b's, and not a's


def _stale(search: Search, worker: Worker, lease: Lease) -> None:
    search.age(lease)


def _killed(search: Search, worker: Worker, lease: Lease) -> None:
    release_dead(search.storage, worker.leases.owner, "killed by signal 9")


def _broken_off(search: Search, worker: Worker, lease: Lease) -> None:
    release_dead(search.storage, worker.leases.owner, "broken off", died=False)


def _handed_back(search: Search, worker: Worker, lease: Lease) -> None:
    assert worker.leases.hand_back(lease, "Ctrl-C")


def _paused(search: Search, worker: Worker, lease: Lease) -> None:
    assert worker.leases.hand_back(lease, "paused", pause=True)
    assert search.worker().asks() == Nothing(running=0)  # and its place is not given away
    assert idle_trials(search.storage, search.place, [1]) == {lease.trial_id: "paused"}
    resume(search.storage, [lease.trial_id])


@pytest.mark.parametrize(
    ("leave", "lost"),
    [
        (_stale, "no sign of life for 60 s"),
        (_killed, "killed by signal 9"),
        (_broken_off, ""),
        (_handed_back, ""),
        (_paused, ""),
    ],
)
def test_the_same_trial_is_adopted(
    place: Place, leave: Callable[[Search, Worker, Lease], None], lost: str
) -> None:
    search = Search.of(place, a=1)
    old, new = search.worker(), search.worker()
    claim = old.claim()
    with old.leases.kept(claim.lease, every=60):
        trial = old.trial(claim)
        drawn = trial.suggest_float("x", 0, 1)
        trial.report(0.25, 0)
        trial.report(0.5, 1)
    assert new.asks() == Nothing(running=1)
    assert idle_trials(search.storage, place, [1]) == {}
    leave(search, old, claim.lease)
    assert idle_trials(search.storage, place, [1]) == {claim.lease.trial_id: "interrupted"}
    adopted = new.claim()
    assert adopted.lease == Lease(trial_id=claim.lease.trial_id, token=2)
    assert adopted.lost.startswith(lost)
    assert bool(adopted.lost) == bool(lost)
    assert (adopted.hopeless, adopted.deaths) == (False, int(bool(lost)))
    same = new.trial(adopted)
    assert same.number == trial.number
    assert same.suggest_float("x", 0, 1) == drawn
    [stored] = search.trials("a")
    assert (stored.params, stored.intermediate_values) == ({"x": drawn}, {0: 0.25, 1: 0.5})
    assert idle_trials(search.storage, place, [1]) == {}
    assert old.asks() == Nothing(running=1)  # it is not the old owner's again
    new.finish(adopted)
    assert new.asks() == old.asks() == Nothing(running=0)


def test_waiting_trials_are_not_idle_ones(place: Place) -> None:
    search = Search.of(place, a=1)
    search.studies["a"].enqueue_trial({})
    assert idle_trials(search.storage, place, [1]) == {}


def test_a_trial_is_hopeless_after_so_many_deaths_without_a_report_between(place: Place) -> None:
    search = Search.of(place, a=1)
    claim = search.worker().claim()
    seen = []
    for epoch in (0, None, 1, None, None):  # what each owner reports before it dies
        worker = search.worker()
        search.age(claim.lease)
        claim = worker.claim(attempts=3)
        seen.append((claim.deaths, claim.hopeless))
        if epoch is not None:
            worker.trial(claim).report(0.5, epoch)
    assert seen == [(1, False), (1, False), (2, False), (1, False), (2, False)]
    search.age(claim.lease)
    claim = search.worker().claim(attempts=3)
    assert (claim.deaths, claim.hopeless) == (3, True)


def test_a_budget_that_was_lowered_holds_when_trials_were_interrupted(place: Place) -> None:
    search = Search.of(place, a=20)
    workers = [search.worker() for _ in range(4)]
    for _ in range(2):
        workers[0].finish(workers[0].claim())
    for worker, claim in [(worker, worker.claim()) for worker in workers]:
        worker.leases.hand_back(claim.lease, "Ctrl-C")
    search.shares["a"] = dataclasses.replace(search.shares["a"], trials=3)
    claims = [worker.asks() for worker in workers]
    assert [isinstance(claim, Claim) for claim in claims] == [True, False, False, False]
    assert isinstance(claims[0], Claim)
    workers[0].finish(claims[0])
    assert [worker.asks() for worker in workers] == [Nothing(running=0)] * 4


def test_handing_back_is_no_death_and_forgets_none(place: Place) -> None:
    search = Search.of(place, a=1)
    claim = search.worker().claim()
    search.age(claim.lease)
    worker = search.worker()
    claim = worker.claim()
    assert claim.deaths == 1
    worker.leases.hand_back(claim.lease, "Ctrl-C")
    worker = search.worker()
    claim = worker.claim()
    assert (claim.deaths, claim.lost, claim.hopeless) == (1, "", False)
    release_dead(search.storage, worker.leases.owner, "killed")
    assert search.worker().claim().hopeless


def test_a_claim_whose_answer_was_lost_is_given_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = Search.of(place, a=2, b=2)
    other, worker = search.worker(), search.worker()
    other.claim()
    claim = worker.claim()
    assert worker.claim() == claim
    search.age(claim.lease)
    adopter = search.worker()
    hopeless = adopter.claim(attempts=1)
    assert hopeless.hopeless
    assert adopter.claim(attempts=1) == hopeless
    # The commit of a claim goes through, and then the connection is gone.
    late = search.worker()
    claimed = late.leases._claim
    calls = []

    def loses_answer(session: Any, *args: Any) -> Any:
        calls.append(claim := claimed(session, *args))
        if len(calls) == 1:
            session.commit()
            raise OperationalError("COMMIT", None, _GoneError("connection lost"), None, True)
        return claim

    monkeypatch.setattr(late.leases, "_claim", loses_answer)
    monkeypatch.setattr(storage_module.time, "sleep", lambda _: None)
    assert late.claim() == calls[0] == calls[1]
    assert sum(len(search.trials(family)) for family in "ab") == 3


class _GoneError(Exception):
    """As a driver has it."""


@pytest.mark.parametrize("finished", [False, True], ids=["adopter runs", "adopter is done"])
def test_an_owner_that_was_thought_dead_changes_nothing(place: Place, finished: bool) -> None:
    search = Search.of(place, a=1)
    old, new = search.worker(), search.worker()
    claim = old.claim()
    trial = old.trial(claim)
    with old.leases.kept(claim.lease, every=60):
        trial.report(0.5, 0)
        search.age(claim.lease)
        adopted = new.claim()
        if finished:
            new.finish(adopted)
        [before] = search.trials("a")
        row = search.row(claim.lease)
        writes: list[Callable[[], object]] = [
            lambda: trial.report(0.75, 1),
            lambda: trial.set_user_attr("mine", True),
            lambda: trial.set_constraint("mine", 1.0),
            lambda: trial.suggest_float("mine", 0, 1),
            lambda: old.studies["a"].tell(trial, 0.75),
            lambda: old.studies["a"].tell(trial, state=TrialState.FAIL),
        ]
        for write in writes:
            with pytest.raises((LeaseLostError, UpdateFinishedTrialError, ValueError)) as caught:
                write()
            if not finished:
                assert caught.type is LeaseLostError
        assert not old.leases.holds(claim.lease)
        assert not old.leases.beat(claim.lease)
        assert not old.leases.hand_back(claim.lease, "too late")
        assert search.trials("a") == [before]
        assert search.row(claim.lease) == row
    assert new.leases.holds(adopted.lease)  # also what it has ended


def test_a_trial_that_was_handed_back_is_not_to_be_written_before_it_is_adopted(
    place: Place,
) -> None:
    search = Search.of(place, a=1)
    worker = search.worker()
    claim = worker.claim()
    trial = worker.trial(claim)
    release_dead(search.storage, worker.leases.owner, "thought dead")
    with worker.leases.kept(claim.lease, every=60), pytest.raises(LeaseLostError):
        trial.report(0.5, 0)


def test_the_owner_learns_from_its_beats_that_it_lost_the_trial(place: Place) -> None:
    search = Search.of(place, a=1)
    worker = search.worker()
    claim = worker.claim()
    search.age(claim.lease, 30)
    with worker.leases.kept(claim.lease, every=0.01) as lost:
        for _ in range(1000):
            if _young(search, claim.lease):
                break
            time.sleep(0.01)
        assert _young(search, claim.lease)
        assert not lost.is_set()
        release_dead(search.storage, worker.leases.owner, "thought dead")
        assert lost.wait(30)


def _young(search: Search, lease: Lease) -> bool:
    with search.storage.engine.begin() as connection:
        clock = "extract(epoch FROM clock_timestamp())::float8"
        if not search.place.is_server:
            clock = "(julianday('now') - 2440587.5) * 86400.0"
        now = connection.execute(text(f"SELECT {clock}")).scalar_one()
    return bool(now - search.row(lease).beat < 20)


def test_no_beat_for_a_trial_that_is_over(place: Place) -> None:
    search = Search.of(place, a=1)
    worker = search.worker()
    claim = worker.claim()
    worker.finish(claim)
    assert not worker.leases.beat(claim.lease)
    row = search.row(claim.lease)
    assert row.owner is None
    assert end_times(search.storage, 1) == {claim.lease.trial_id: row.ended}
    assert row.ended >= row.beat


def adopt(place: Place, shares: dict[str, Share]) -> list[tuple[int, int]]:
    """Adopts trials, which it keeps running, until there are none."""
    storage, had = open_storage(place, write=True), []
    while True:
        leases = Leases(storage, place, new_owner(), grace=_GRACE)
        claim = leases.claim(shares, attempts=9)
        if isinstance(claim, Nothing):
            return had
        had.append((claim.lease.trial_id, claim.lease.token))


def test_of_many_contenders_one_adopts_each_stale_trial(place: Place, together: Together) -> None:
    search = Search.of(place, a=30, b=20)
    storage = search.storage
    stale = [
        Leases(storage, place, new_owner()).claim(search.shares, attempts=2) for _ in range(50)
    ]
    for claim in stale:
        assert isinstance(claim, Claim)
        search.age(claim.lease)
    had = [lease for leases in together(8, adopt, place, search.shares) for lease in leases]
    assert sorted(had) == [(claim.lease.trial_id, 2) for claim in stale if isinstance(claim, Claim)]


def test_finishing_with_the_answer_lost_is_no_error(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = Search.of(place, a=2)
    worker = search.worker()
    claim = worker.claim()
    write, calls = RDBStorage.set_trial_state_values, []

    def loses_answer(self: RDBStorage, *args: Any, **kwargs: Any) -> bool:
        calls.append(args)
        done = write(self, *args, **kwargs)
        if len(calls) == 1:
            raise OperationalError("COMMIT", None, _GoneError("connection lost"), None, True)
        return done

    monkeypatch.setattr(RDBStorage, "set_trial_state_values", loses_answer)
    monkeypatch.setattr(storage_module.time, "sleep", lambda _: None)
    worker.finish(claim, 0.5)
    assert len(calls) == 2
    [trial] = search.trials("a")
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.5)
    # To finish twice is an error all the same.
    with pytest.raises((UpdateFinishedTrialError, ValueError)):
        worker.storage.set_trial_state_values(claim.lease.trial_id, TrialState.COMPLETE, [0.75])
    assert search.trials("a")[0].value == 0.5


@pytest.mark.parametrize("place", ["postgres"], indirect=True)
def test_an_owner_that_comes_back_while_it_is_given_up(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = Search.of(place, a=2)
    old, new = search.worker(), search.worker()
    claim = old.claim()
    search.age(claim.lease)

    def meanwhile(*_: object) -> set[str]:
        if old.leases.holds(claim.lease):
            old.finish(claim)
        return set()

    monkeypatch.setattr(leases_module, "dead", meanwhile)  # asked between looking and taking
    answer = new.asks()
    assert not isinstance(answer, Claim) or answer.lease.trial_id != claim.lease.trial_id
    assert search.row(claim.lease).owner is None
    assert search.row(claim.lease).token == 1
    assert search.trials("a")[0].state is TrialState.COMPLETE


def live(place: Place, shares: dict[str, Share], told: Any) -> None:
    """Claims a trial, says so, and then only lives."""
    owner = new_owner()
    leases = Leases(open_storage(place, write=True), place, owner, grace=_GRACE)
    with present(place, owner):
        claim = leases.claim(shares, attempts=2)
        assert isinstance(claim, Claim)
        told.send((claim.lease.trial_id, owner))
        time.sleep(600)


@contextlib.contextmanager
def living(
    search: Search, processes: ForkServerContext
) -> Iterator[tuple[int, str, Callable[[], None]]]:
    """A process that runs a trial: the trial, its name, and what kills it."""
    here, there = processes.Pipe(duplex=False)
    process = processes.Process(target=live, args=(search.place, search.shares, there))
    process.start()
    there.close()

    def kill() -> None:
        process.kill()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL

    try:
        assert here.poll(120)
        yield (*here.recv(), kill)
    finally:
        kill()


def test_a_killed_process_of_this_machine_is_known_at_once(
    place: Place, processes: ForkServerContext
) -> None:
    search = Search.of(place, a=2)
    with (
        living(search, processes) as (lives, owner, _),
        living(search, processes) as (dies, killed, kill),
    ):
        assert search.worker().asks() == Nothing(running=2)
        assert dead(place, [owner, killed]) == set()
        kill()
        assert dead(place, [owner, killed]) == {killed}
        for path in (place.private / "workers").iterdir():
            os.utime(path, (time.time() - 3600,) * 2)  # they had worked for an hour
        assert idle_trials(search.storage, place, [1]) == {dies: "interrupted"}
        forget_dead(place)  # as a search does when it starts
        claim = search.worker().claim()
        assert claim.lease == Lease(trial_id=dies, token=2)
        assert "killed" in claim.lost
        assert search.worker().asks() == Nothing(running=2)
        assert search.row(Lease(trial_id=lives, token=1)).owner == owner


def test_whom_no_file_tells_of_has_the_whole_grace(place: Place) -> None:
    search = Search.of(place, a=1)
    elsewhere = search.worker("another-machine/0123456789abcdef")
    claim = elsewhere.claim()
    # A free file of that name is here by chance: it tells of this machine's processes only.
    with present(place, new_owner()):
        (place.private / "workers" / "0123456789abcdef").touch()
    search.age(claim.lease, _GRACE - 5)
    assert search.worker().asks() == Nothing(running=1)
    search.age(claim.lease, 6)
    claim = search.worker().claim()  # of this machine, with no file
    assert claim.lost.startswith("no sign of life")
    search.age(claim.lease, _GRACE - 5)
    assert search.worker().asks() == Nothing(running=1)
    search.age(claim.lease, 6)
    assert search.worker().claim().lease.token == 3


def look(place: Place, shares: dict[str, Share], zone: str, shift: float) -> list[Any]:
    """What a worker in that time zone, with its clock that wrong, claims and finds abandoned."""
    os.environ["TZ"] = zone
    time.tzset()
    clock = time.time
    time.time = lambda: clock() + shift
    leases = Leases(open_storage(place, write=True), place, new_owner(), grace=_GRACE)
    mine = leases.claim(shares, attempts=2)
    assert isinstance(mine, Claim)
    assert leases.beat(mine.lease)
    return [
        time.strftime("%z"),
        Leases(open_storage(place, write=True), place, new_owner(), grace=_GRACE).claim(
            {family: dataclasses.replace(s, closed=True) for family, s in shares.items()},
            attempts=2,
        ),
        idle_trials(open_storage(place), place, [1]),
    ]


def test_clocks_and_time_zones_of_workers_do_not_matter(
    place: Place, processes: ForkServerContext
) -> None:
    search = Search.of(place, a=9)
    mine = search.worker().claim()
    zones = [("Asia/Tokyo", 0.0), ("America/New_York", 0.0), ("UTC", 9e3), ("UTC", -9e3)]
    offsets = []
    for number, (zone, shift) in enumerate(zones, start=2):
        with ProcessPoolExecutor(1, mp_context=processes) as pool:
            offset, left, idle = pool.submit(look, place, search.shares, zone, shift).result(120)
        offsets.append(offset)
        assert left == Nothing(running=number)
        assert idle == {}
    assert len(set(offsets)) == 3  # the zones are known here
    assert search.worker().asks(a=True) == Nothing(running=5)
    assert search.row(mine.lease).token == 1
    search.age(mine.lease)
    with ProcessPoolExecutor(1, mp_context=processes) as pool:
        _, left, _ = pool.submit(look, place, {"a": search.shares["a"]}, "Asia/Tokyo", 0).result()
    assert search.row(mine.lease).token == 2


def test_a_deleted_study_leaves_its_owners_no_rights(place: Place) -> None:
    search = Search.of(place, a=1)
    old = search.worker()
    claim = old.claim()
    trial = old.trial(claim)
    optuna.delete_study(study_name="a", storage=search.storage)
    search = Search.of(place, a=1)
    search.studies["a"].enqueue_trial({})
    assert search.worker().asks(a=True) == Nothing(running=0)
    # Not even to the old owner does the new trial, which waits, pass for its own.
    again = (old if old.search.shares == search.shares else search.worker()).claim()
    [stored] = search.trials("a")
    assert stored.state is TrialState.RUNNING
    if not place.is_server:
        assert again.lease.trial_id == claim.lease.trial_id  # SQLite gives ids away again
    row = search.row(again.lease)
    old.leases.beat(claim.lease)
    old.leases.hand_back(claim.lease, "late")
    with old.storage.held(claim.lease), pytest.raises((LeaseLostError, KeyError)):
        old.storage.set_trial_intermediate_value(trial._trial_id, 0, 0.5)
    assert search.trials("a") == [stored]
    assert search.row(again.lease) == row


def test_a_trial_of_a_version_without_leases_is_adopted(place: Place) -> None:
    search = Search.of(place, a=1)
    asked = search.studies["a"].ask()
    claim = search.worker().claim()
    assert claim.lease == Lease(trial_id=asked._trial_id, token=1)
    assert claim.lost == ""
    assert search.worker().asks() == Nothing(running=1)


def test_calls_wait_for_a_database_that_is_away(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = Search.of(place, a=1)
    worker = search.worker()
    away = threading.Event()

    @sqlalchemy.event.listens_for(worker.storage.engine, "do_execute")
    def fails(*_: object) -> None:
        if away.is_set():
            raise OperationalError("SELECT", None, _GoneError("connection lost"), None, True)

    waited: list[float] = []
    monkeypatch.setattr(storage_module.time, "sleep", lambda s: (waited.append(s), away.clear()))
    claim = worker.claim()
    calls: list[Callable[[], object]] = [
        lambda: worker.claim(),
        lambda: worker.leases.holds(claim.lease),
        lambda: end_times(worker.storage, 1),
        lambda: worker.trial(claim).report(0.5, 0),
        lambda: worker.trial(claim).set_user_attr("key", 1),
        lambda: worker.studies["a"].set_user_attr("key", 1),
        lambda: worker.studies["a"].get_trials(),
        lambda: worker.leases.hand_back(claim.lease, "stopped"),
        lambda: resume(worker.storage, [claim.lease.trial_id]),
        lambda: release_dead(worker.storage, worker.leases.owner, "killed"),
    ]
    for number, call in enumerate(calls, start=1):
        away.set()
        call()
        assert len(waited) == number


def test_an_outage_is_no_silence_of_the_owners(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the database was away, they could not beat; whoever comes back first is no judge."""
    search = Search.of(place, a=1)
    lease = search.worker("another-machine/0123456789abcdef").claim().lease
    other, clock = search.worker(), [1000.0]
    monkeypatch.setattr(storage_module.time, "monotonic", lambda: clock[0])
    told: list[bool] = []
    other.storage.tell_away = told.append
    away = [True, True]

    @sqlalchemy.event.listens_for(other.storage.engine, "do_execute")
    def fails(*_: object) -> None:
        if away:
            raise OperationalError("SELECT", None, _GoneError("connection lost"), None, True)

    def passes(_: float) -> None:
        clock[0] += 100.0
        away.pop()

    monkeypatch.setattr(storage_module.time, "sleep", passes)
    search.age(lease, 200 + _GRACE - 5)
    assert other.asks() == Nothing(running=1)  # it was away for 200 s of these
    assert told == [True, False]
    search.age(lease, 10)  # but not for these
    adopted = other.claim()
    assert (adopted.lease.trial_id, adopted.lease.token) == (lease.trial_id, 2)


def test_long_after_an_outage_silence_is_silence(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = Search.of(place, a=1)
    lease = search.worker("another-machine/0123456789abcdef").claim().lease
    other = search.worker()
    other.storage._mark(away=True)
    other.storage._mark(away=False)
    other.storage._outage = (other.storage._outage[0], 200.0)
    search.age(lease)
    assert other.asks() == Nothing(running=1)
    later = storage_module.time.monotonic() + _GRACE
    monkeypatch.setattr(storage_module.time, "monotonic", lambda: later)
    assert other.claim().lease.token == 2
