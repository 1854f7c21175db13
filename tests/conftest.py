"""Settings of the whole test run: one torch thread, and property tests that are the same every time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

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
