"""The `plan` command as a user has it: what it says, the file it writes, finished runs at their true cost."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from click.testing import Result
from helpers import FACTS, PLAIN, R16, make_record, write_record
from studies import ABLATIONS

from senet_ablate.results.plan import read_plan
from senet_ablate.results.records import StudyPlan
from senet_ablate.results.store import Study
from senet_ablate.spec.cost import total_cost
from senet_ablate.spec.loading import load_protocol
from senet_ablate.spec.network import SEConfig, Variant
from senet_ablate.spec.protocol import Protocol

DIGITS = load_protocol(ABLATIONS, "digits")
MAX = Variant(se=SEConfig(squeeze="max"))
SQUEEZE = (MAX, R16, PLAIN)
"""The networks of table 11."""

Call = Callable[..., Result]


def said(result: Result) -> str:
    """Standard output on one line."""
    return " ".join(result.stdout.split())


def told(result: Result) -> str:
    """The mistake, on one line."""
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit), "no traceback"
    return " ".join(result.stderr.split())


def powers(result: Result) -> dict[str, dict[str, str]]:
    """What is printed of each claim, by its id and in the order of the output."""
    names = ("mde", "paper", "power", "half", "takes")
    number = r" +(\d+\.\d\d)"
    lines = re.findall(rf"^ *(\S+) .*?{4 * number} +(\S.*?) *$", result.stdout, flags=re.MULTILINE)
    return {name: dict(zip(names, cells, strict=True)) for name, *cells in lines}


def the_plan(study: str = "digits") -> StudyPlan:
    plan = read_plan(Study(Path("results") / study))
    assert plan is not None
    return plan


def finish(
    counts: Mapping[Variant, int], study: str = "digits", wall_s: float = 60.0, protocol: Protocol = DIGITS
) -> Study:
    """Finished runs of networks at their true cost, each second of which is `wall_s` for the plain network."""
    made = Study(Path("results") / study)
    made.begin(protocol, FACTS)
    for variant, count in counts.items():
        costs = {
            each: total_cost(protocol.network, each, in_channels=1, classes=10, resolution=protocol.data.resolution)
            for each in (variant, PLAIN)
        }
        for seed in range(count):
            seconds = wall_s * costs[variant].macs / costs[PLAIN].macs
            record = make_record(variant, seed, 10.0 + seed / 2, protocol=protocol, wall_s=seconds)
            write_record(made, record.model_copy(update={"complexity": costs[variant]}))
    return made


def nothing_written() -> bool:
    return not list(Path.cwd().rglob("*"))
