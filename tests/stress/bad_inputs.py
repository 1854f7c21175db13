"""Try so many generated bad inputs, wherever a person types or a file is read, and write what became of them.

    python tests/stress/bad_inputs.py [--inputs 11000] [--seed 0]

Counted are different inputs that have something wrong with them: refused with a message, or set aside where a damaged
file is as good as none. Generated inputs that happen to be right are not. Ends with 1 if one of them was answered in
any other way than documented; the smallest such input is in the report.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections import Counter
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))

import hypothesis  # noqa: E402
from file_places import FILES  # noqa: E402
from hypothesis import HealthCheck, Phase, given, settings  # noqa: E402
from image_places import IMAGES  # noqa: E402
from lives import say  # noqa: E402
from places import SET_ASIDE, TYPED, Place, desk  # noqa: E402
from stranger_places import STRANGERS  # noqa: E402

from senet_ablate.environment import code_state  # noqa: E402
from senet_ablate.files import write_atomic  # noqa: E402

LIBRARIES = ("hypothesis", "click", "pydantic", "pillow", "numpy", "torch", "torchvision")
ROUNDS = 20
"""How often more inputs of a place are generated until enough of them are bad."""


@dataclass
class Tried:
    """What became of the inputs of one place, each counted once."""

    place: Place
    seen: set[str] = field(default_factory=set)
    answers: Counter[str] = field(default_factory=Counter)
    defect: str = ""

    @property
    def bad(self) -> int:
        return self.answers["refused"] + self.answers[SET_ASIDE]

    def one(self, given_input: object) -> None:
        answer = self.place.answer(given_input)
        spelt = repr(given_input)
        if spelt not in self.seen:
            self.seen.add(spelt)
            self.answers["right" if answer is None else SET_ASIDE if answer == SET_ASIDE else "refused"] += 1


def campaign(place: Place, wanted: int, seed: int) -> Tried:
    tried = Tried(place)
    for number in range(ROUNDS):
        if tried.bad >= wanted:
            break

        @hypothesis.seed(seed * ROUNDS + number)
        @settings(
            max_examples=max(10, wanted - tried.bad),
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        @given(place.inputs)
        def each(given_input: object) -> None:
            tried.one(given_input)

        try:
            each()
        except Exception as error:  # whatever it is, it is a defect of the suite
            notes = "\n".join(getattr(error, "__notes__", []))
            tried.defect = f"{type(error).__name__}: {str(error)[-1500:]}\n{notes[:1500]}"
            break
    say(f"{place.name}: {tried.bad} bad inputs" + (f", and a defect: {tried.defect}" if tried.defect else ""))
    return tried


def line(name: str, answers: Counter[str], defects: int) -> str:
    refused, aside = answers["refused"], answers[SET_ASIDE]
    right = answers["right"]
    return f"| {name} | {refused + aside:,} | {refused:,} | {aside:,} | {right:,} | {defects or 'none'} |"


def to_markdown(found: list[Tried], seed: int) -> str:
    commit, dirty = code_state()
    everywhere = sum((tried.answers for tried in found), Counter[str]())
    defects = [tried for tried in found if tried.defect]
    lines = [line(tried.place.name, tried.answers, int(bool(tried.defect))) for tried in found]
    table = "\n".join([*lines, line("together", everywhere, len(defects))])
    examples = "".join(f"\n## {tried.place.name}\n\n```\n{tried.defect}\n```\n" for tried in defects)
    code = f"commit {(commit or 'unknown')[:10]}{' with changes' if dirty else ''}"
    versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return f"""# Bad input

{everywhere["refused"] + everywhere[SET_ASIDE]:,} different generated bad inputs, wherever a person types or a file is
read: {len(defects) or "no"} traceback or other end that is not documented.

| place | bad inputs | refused | set aside | right after all, not counted | other end |
|:---|---:|---:|---:|---:|---:|
{table}

- Refused: exit code 2 (1 where `verify` and `merge` tell what they found) and a message that names the option, the
  value or the file; a call that ended with 2 changed nothing in the results.
- Set aside: a damaged file that is as good as none, such as a note on a run's progress, or a checkpoint, after which
  the run begins anew; or a text that is a command elsewhere, which is shown in a spelling that nothing obeys.
- Nothing that was read was executed: hostile pickles among weights, checkpoints and predictions left no
  trace.
- By `make bad-inputs`, seed {seed}, {code}, Python {platform.python_version()}, {versions}.
{examples}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=11_000, help="bad inputs in all, at least")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reports", type=Path, default=ROOT / "reports")
    parser.add_argument("--only", default="", help="places with this in their name")
    given_options = parser.parse_args()
    places = [place for place in (*TYPED, *FILES, *IMAGES, *STRANGERS) if given_options.only in place.name]
    parts = sum(place.parts for place in places)
    with desk():
        found = [
            campaign(place, -(-given_options.inputs * place.parts // parts), given_options.seed) for place in places
        ]
    page = to_markdown(found, given_options.seed)
    print(page)
    if not given_options.only:
        write_atomic(given_options.reports.resolve() / "bad-inputs" / "bad-inputs.md", page)
    sys.exit(1 if any(tried.defect for tried in found) else 0)


if __name__ == "__main__":
    main()
