"""Drivers that share a study: nobody does what another does, and everybody ends with all of it finished."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from helpers import PROTOCOL, SE
from sound import begun, sound_run
from test_lease import gone, holder  # noqa: F401 - a fixture

from senet_ablate.execution import executor
from senet_ablate.execution.executor import share
from senet_ablate.results import lease
from senet_ablate.results.lease import Taken, leased, this_node
from senet_ablate.results.store import Study
from senet_ablate.training.request import Event, RunRequest


@pytest.fixture
def requests(tmp_path: Path) -> list[RunRequest]:
    study = begun(Study(tmp_path))
    specs = [PROTOCOL.run_spec(SE, seed) for seed in range(3)]
    return [RunRequest(spec=spec, folder=study.run(spec.run_id)) for spec in specs]


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "TICK_S", 0.01)


def finish(request: RunRequest) -> None:
    request.folder.finish(*sound_run(SE, request.spec.seed))


def lease_on(request: RunRequest, **changes: object) -> Path:
    """Somebody else's lease."""
    path = request.folder.path / "lease-1.json"
    path.parent.mkdir()
    path.write_bytes(holder(**changes).content(0))
    return path


class Doer:
    """Does at once what it gets a lease for, one after the other; `calls` are the seeds of each pass."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []

    def execute(self, requests: Sequence[RunRequest], fits: object) -> Iterator[Event | None]:
        self.calls.append([request.spec.seed for request in requests])
        for request in requests:
            yield Event("started", request)
            try:
                with leased(request.folder.path, request.overdue):
                    finish(request)
                yield Event("finished", request)
            except Taken as taken:
                yield Event("busy", request, str(taken))
            yield None


def work(requests: list[RunRequest], then: Callable[[int], None]) -> tuple[list[tuple[str, int]], Doer]:
    """All that is told of the runs; after each look at what others do, `then` gets its number."""
    doer, told, looks = Doer(), [], 0
    for event in share(doer, requests, lambda request: True):
        if event is not None:
            told.append((event.kind, event.request.spec.seed))
        elif len(told) >= 6:  # the first pass is over
            looks += 1
            then(looks)
    return told, doer


FIRST_PASS = [("started", 0), ("finished", 0), ("started", 1), ("busy", 1), ("started", 2), ("finished", 2)]


def test_without_others_it_is_the_executor_itself(requests: list[RunRequest]) -> None:
    told, doer = work(requests, lambda look: None)
    assert told == [(kind, seed) for seed in range(3) for kind in ("started", "finished")]
    assert doer.calls == [[0, 1, 2]]


def test_what_another_does_is_left_to_it_and_awaited(requests: list[RunRequest]) -> None:
    with leased(requests[1].folder.path):

        def end(look: int) -> None:
            if look == 5:
                finish(requests[1])

        told, doer = work(requests, end)
    assert told == [*FIRST_PASS, ("found", 1)]
    assert doer.calls == [[0, 1, 2]], "the executor is not asked again"


def test_what_another_gives_up_is_done_here(requests: list[RunRequest]) -> None:
    path = lease_on(requests[1])
    told, doer = work(requests, lambda look: path.unlink() if look == 3 else None)
    assert told == [*FIRST_PASS, ("started", 1), ("finished", 1)]
    assert doer.calls == [[0, 1, 2], [1]]


def test_a_dead_drivers_run_is_taken_over_when_its_heartbeat_has_stood_still(
    requests: list[RunRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "STALE_S", 0.2)
    lease_on(requests[1])  # on another machine, where nobody can be asked
    seen = []
    told, _ = work(requests, seen.append)
    assert told == [*FIRST_PASS, ("started", 1), ("finished", 1)]
    assert len(seen) > 3, "not at once"


def test_leases_of_processes_that_ended_with_the_driver_are_cleared(requests: list[RunRequest], gone: int) -> None:  # noqa: F811
    """Ctrl-C kills the workers: a driver on another machine need not wait to find that out."""

    class Interrupted:
        def execute(self, requests: Sequence[RunRequest], fits: object) -> Iterator[Event | None]:
            for request, node in zip(requests, (this_node(), "another"), strict=False):
                lease_on(request, node=node, pid=gone)
            yield None
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(share(Interrupted(), requests, lambda request: True))
    left = [lease.current(request.folder.path).number for request in requests]
    assert left == [0, 1, 0], "of another machine nothing is known"


def test_a_record_that_is_damaged_is_for_the_runs_own_try_to_tell(requests: list[RunRequest]) -> None:
    path = lease_on(requests[1])

    def spoil(look: int) -> None:
        if path.exists():
            requests[1].folder.record_file.write_text("{")
            path.unlink()

    told, _ = work(requests, spoil)
    assert told == [*FIRST_PASS, ("started", 1), ("finished", 1)]
