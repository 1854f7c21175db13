"""Settings of the whole test run: one torch thread, and property tests that are the same every time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from helpers import FACTS, PLAIN, PROTOCOL, R4, R16, make_record, write_record
from hypothesis import settings
from studies import ABLATIONS

from senet_ablate.cli.main import main
from senet_ablate.results.store import Study

# No time limits, and the same examples in every run; nothing is kept between runs.
settings.register_profile("suite", deadline=None, derandomize=True, database=None, max_examples=60)
settings.load_profile("suite")


@pytest.fixture(autouse=True, scope="session")
def one_torch_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def decode_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that decoded images go to in this test."""
    place = tmp_path / "cache"
    monkeypatch.setenv("SENET_ABLATE_CACHE", str(place))
    return place


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No download gets through; the list is of the addresses that were asked for."""
    asked: list[str] = []

    def refuse(request: object, *args: object, **kwargs: object) -> None:
        from urllib.error import URLError

        asked.append(getattr(request, "full_url", str(request)))
        raise URLError("no network in this test")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    return asked


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run a command in this process, in an empty folder, with the repository's declarations."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, [*arguments, "--ablations", str(ABLATIONS)])


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A study that has begun."""
    study = Study(tmp_path / "results" / "first")
    study.begin(PROTOCOL, FACTS)
    return study


@pytest.fixture
def full(study: Study) -> Study:
    """Three seeds of each arm."""
    for variant, errors in ((R4, (10.0, 12.0, 17.0)), (R16, (11.0, 11.5, 13.5)), (PLAIN, (14.0, 15.0, 16.0))):
        for seed, error in enumerate(errors):
            write_record(study, make_record(variant, seed, error))
    return study
