"""Bad input, wherever a person types or a file is read: one message that names it, never a traceback.

What is tried where is in `places.py`, `file_places.py` and `image_places.py`; `make bad-inputs` tries more and counts.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from file_places import FILES
from hypothesis import HealthCheck, given, settings
from image_places import IMAGES
from places import TYPED, Place, desk
from stranger_places import STRANGERS

PLACES = (*TYPED, *FILES, *IMAGES, *STRANGERS)


@pytest.fixture(scope="module", autouse=True)
def at_the_desk() -> Iterator[None]:
    with desk():
        yield


def try_place(place: Place, inputs: int) -> int:
    """How many of so many inputs were refused."""
    refused = []

    @settings(max_examples=inputs, suppress_health_check=list(HealthCheck))
    @given(place.inputs)
    def each(given_input: object) -> None:
        refused.append(place.answer(given_input) is not None)

    each()
    return sum(refused)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
def test_bad_input_ends_in_a_message(place: Place) -> None:
    assert try_place(place, 2 * place.parts + 2)


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
def test_a_hundred_times_as_much_bad_input_ends_in_messages(place: Place) -> None:
    assert try_place(place, 100 * place.parts)
