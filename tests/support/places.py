"""Where a person types: each option and argument of each command, with what may be typed there by mistake.

`TYPED` is the first part of a campaign's table (`test_bad_inputs.py`, `tests/stress/bad_inputs.py`); files are in
`file_places.py` and `image_places.py`. A place has a strategy of inputs and a call, which says how an input was
answered: a message, or None if there was nothing wrong with it. A traceback, another exit code than the documented
ones, a message that names neither option nor value, or a change of the results by a refused call is an AssertionError.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
from click.testing import CliRunner
from garbled import refusal
from helpers import FACTS, PROTOCOL, image_folder
from hypothesis import strategies as st

from senet_ablate.cli.console import CONTROL
from senet_ablate.cli.main import main
from senet_ablate.execution.cluster import node_resources, read_options
from senet_ablate.execution.ray import RayOptions
from senet_ablate.execution.slurm import SlurmOptions
from senet_ablate.results.store import Study
from senet_ablate.spec.claims import Rules
from senet_ablate.spec.loading import declarations_dir

ABLATIONS = declarations_dir().resolve()

EXIT_CODES = (1, 2)
"""Of a call that was refused, or found what it was to look for (`verify`, `merge`)."""

WORK = (
    "analysis.audit.audit_networks",
    "analysis.calibration.calibrate",
    "analysis.summary.summarise",
    "cli.init._show",
    "models.survey.count_complexity",
    "models.latency.measure_latency",
    "blocks.contract.check_block",
    "data.inspect.inspect_folder",
    "execution.machine.alone",
    "results.merge.merge",
    "report.write.write_report",
    "results.store.Study.begin",
    "execution.rerun.of_run",
)
"""Where the work of a command begins, once all that was typed is found right."""


SET_ASIDE = "set aside"
"""The answer where a damaged file is as good as none: nothing is told."""

CANARY = "pwned"
"""A folder that exists once something that was read has been executed."""


class Fine(Exception):  # noqa: N818 - the opposite of an error
    """An input came to where the work begins."""


@dataclass(frozen=True)
class Place:
    """Where inputs come in, how many parts of a campaign's inputs, what is put in, and how it is answered."""

    name: str
    parts: int
    inputs: st.SearchStrategy[Any]
    answer: Callable[[Any], str | None]


@contextmanager
def desk() -> Iterator[Path]:
    """A working directory with two tables, two protocols, a begun study and a folder of images; no work is done."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "ablations" / "protocols").mkdir(parents=True)
        for file in ("table10_ratio", "table12_gate", "protocols/digits", "protocols/cifar10-folder"):
            shutil.copy(ABLATIONS / f"{file}.toml", folder / "ablations" / f"{file}.toml")
        Study(folder / "results" / "first").begin(PROTOCOL, FACTS)
        image_folder(folder / "images")
        stack.enter_context(patch.dict(os.environ, {"SENET_ABLATE_CACHE": str(folder / "cache")}))
        before = Path.cwd()
        os.chdir(folder)
        stack.callback(os.chdir, before)
        yield folder


def kept() -> dict[str, tuple[int, int]]:
    """The files of all results here."""
    files = [path for home in ("results", "scratch") for path in Path(home).rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in files if "reports" not in path.parts}


def shell(*arguments: str, work: Sequence[str] = WORK, **environment: str) -> str | None:
    """What the command says of a mistake; None if it found none."""
    before = kept()
    with ExitStack() as stack:
        for place in work:
            stack.enter_context(patch(f"senet_ablate.{place}", side_effect=Fine))
        stack.enter_context(patch("senet_ablate.execution.local.warm_up"))
        result = CliRunner().invoke(main, arguments, env=environment)
    error = result.exception
    if isinstance(error, Fine) or result.exit_code == 0:
        return None
    text = "".join(traceback.format_exception(error)) if error else ""
    assert isinstance(error, SystemExit), f"{arguments}: {text}"
    assert result.exit_code in EXIT_CODES, f"{arguments}: exit code {result.exit_code}"
    assert "Traceback (most recent call last)" not in result.output, f"{arguments}: {result.output}"
    assert result.exit_code != 2 or kept() == before, f"{arguments}: refused, and files were changed"
    return result.output


def named(told: str | None, *words: str) -> str | None:
    """The answer, which has one of the words."""
    text = "".join((told or "").split())  # a terminal has its own idea of white space
    assert told is None or any("".join(word.split()) in text for word in words), f"none of {words} in: {told}"
    return told


@contextmanager
def scratch(name: str = "scratch") -> Iterator[Path]:
    """An empty folder here, removed afterwards; and nothing that was read was executed."""
    folder = Path(name)
    folder.mkdir()
    try:
        yield folder
        assert not Path(CANARY).exists(), "executed"
    finally:
        shutil.rmtree(folder)


# --- what is typed ---

ODD = (
    *(
        "",
        " ",
        "-",
        "--",
        "=",
        ",",
        ".",
        "..",
        "/",
        "~",
        "*",
        "%s",
        "{}",
        "0",
        "-1",
        "1.5",
        "1e3",
        "1_000",
        "0x10",
        "１",
        "٣",
    ),
    *(
        "nan",
        "inf",
        "-inf",
        "1e999",
        "1e308",
        "5e-324",
        "9" * 30,
        "9" * 400,
        "9" * 5000,
        "true",
        "None",
        "null",
        "[1, 2]",
    ),
    *(
        "{a = 1}",
        "[" * 2000,
        "a." * 2000 + "b",
        "a=",
        "=b",
        "a=b=c",
        "a\nb = 1",
        "1\nb = 2",
        "\t",
        "\x1b[31m",
        "\udcff",
    ),
    *(
        "é",
        "Ünï",
        "文",
        "👩‍💻",
        "\u202e",
        "\u2028",
        "x" * 300,
        "x" * 5000,
        "a b",
        "a,b",
        "a,,b",
        "con",
        "1979-05-27",
        "07:32",
    ),
    *(
        "../x",
        "../../x",
        "/etc/passwd",
        "results",
        "images",
        "ablations",
        ".hidden",
        "$(id)",
        "`id`",
        "'",
        '"',
        "\\",
        "<!--",
    ),
    *(
        "digits",
        "digit",
        "ratio",
        "rato",
        "r2",
        "r15",
        "first",
        "2h",
        "0h",
        "90 parsecs",
        "1e9h",
        "auto",
        "cpu",
        "cuda:7",
        "slrum",
    ),
)

texts = st.text(st.characters(exclude_characters="\x00", exclude_categories=("Cs",)), max_size=12)
typed = (
    st.sampled_from(ODD)
    | texts
    | st.integers().map(str)
    | st.floats().map(str)
    | st.builds(
        lambda word, place, text: word[:place] + text + word[place:], st.sampled_from(ODD), st.integers(0, 9), texts
    )
)
"""What a shell can hand over: any text without the character that ends one."""

USUAL = {
    "init": ("--data", "images"),
    "plan": ("gate",),
    "run": ("ratio", "--protocol", "cifar10-folder", "--data", "images", "--set", "recipe.batch_size=2"),
    "report": ("--study", "first"),
    "summary": ("first",),
    "count": ("ratio", "--protocol", "digits"),
    "try": ("constant",),
    "merge": ("results/first", "--into", "second", "--new"),
    "show": ("se-r16-s0",),
}
"""What makes a call of a command right, before something wrong is added."""

OPTIONS = [
    (name, option)
    for name, command in sorted(main.commands.items())
    for parameter in command.params
    if isinstance(parameter, click.Option) and not parameter.is_flag
    for option in parameter.opts
]
"""Every option of every command that takes a value."""


def spellings(value: str) -> Iterator[str]:
    """How a message may show what was typed: as Python writes it, as a terminal may show it, or a part of it."""
    if value:
        yield repr(value)[1:-1]
        yield CONTROL.sub("\ufffd", value)
        yield click.format_filename(value)
        yield from (repr(part.strip()) for part in value.split(","))
        if value.isdecimal() and len(value) < 20:
            yield str(int(value))  # whatever script its digits are of
    yield repr(value)


def answer_option(typed_in: tuple[tuple[str, str], str]) -> str | None:
    (command, option), value = typed_in
    told = shell(command, *USUAL.get(command, ()), f"{option}={value}")
    return named(told, option, *spellings(value))


NEEDED = {"merge": ("--into", "second", "--new"), "count": ("--protocol", "digits"), "report": ("--study", "first")}


def answer_arguments(typed_in: tuple[str, list[str]]) -> str | None:
    command, values = typed_in
    told = shell(command, *NEEDED.get(command, ()), "--", *values)
    return named(told, *(word for value in values for word in spellings(value)))


def keys_of(tree: dict[str, Any], place: str = "") -> Iterator[str]:
    for key, value in tree.items():
        yield f"{place}{key}"
        if isinstance(value, dict):
            yield from keys_of(value, f"{place}{key}.")


OFTEN_RIGHT = (
    "1",
    "2",
    "4",
    "8",
    "64",
    "0.5",
    "1e-4",
    "true",
    "[1]",
    "small",
    "folder",
    "resnet18",
    "3x3",
    "step",
    "full",
)


def pairs(keys: Sequence[str]) -> st.SearchStrategy[list[str]]:
    """One or two KEY=VALUE texts, most with a key that exists."""
    key = st.sampled_from(sorted(keys)) | st.sampled_from(sorted(keys)).map(lambda key: key[:-1]) | typed
    equals = st.sampled_from(("=", "=", "=", " = ", ""))
    pair = st.builds(lambda *parts: "".join(parts), key, equals, typed | st.sampled_from(OFTEN_RIGHT))
    return st.lists(pair, min_size=1, max_size=2)


def answer_set(changes: list[str]) -> str | None:
    told = shell("status", "ratio", "--rows", "r2", *(f"--set={change}" for change in changes))
    return named(told, "--set", ", row '")


def answer_rule(changes: list[str]) -> str | None:
    return named(shell("plan", "gate", *(f"--rule={change}" for change in changes)), "--rule")


def answer_engine(typed_in: tuple[type[SlurmOptions] | type[RayOptions], list[str]]) -> str | None:
    model, texts = typed_in
    told = refusal(lambda: node_resources(read_options(model, texts), "auto", 1, 1), "")
    return named(told or None, "--executor-option")


def answer_environment(typed_in: tuple[str, str]) -> str | None:
    executor, options = typed_in
    given = {"SENET_ABLATE_EXECUTOR": executor, "SENET_ABLATE_EXECUTOR_OPTIONS": options}
    return named(shell("run", *USUAL["run"], **given), "--executor", "--executor-option")


PROTOCOL_KEYS = [*keys_of(PROTOCOL.model_dump()), "data", "network", "recipe", "recipe.schedule.milestones"]
RULE_KEYS = list(Rules.model_fields)

TYPED = (
    Place("every option of every command", 32, st.tuples(st.sampled_from(OPTIONS), typed), answer_option),
    Place(
        "arguments: tables, networks, studies, sources",
        6,
        st.tuples(
            st.sampled_from(("plan", "status", "report", "count", "excitation", "prune", "verify", "merge")),
            st.lists(typed, min_size=1, max_size=2),
        ),
        answer_arguments,
    ),
    Place("a block to try", 3, st.tuples(st.just("try"), st.lists(typed, min_size=1, max_size=1)), answer_arguments),
    Place("--set KEY=VALUE", 10, pairs(PROTOCOL_KEYS), answer_set),
    Place("--rule KEY=VALUE", 4, pairs(RULE_KEYS), answer_rule),
    Place(
        "--executor-option KEY=VALUE",
        6,
        st.one_of(
            st.tuples(st.just(model), pairs([*model.model_fields, "sbatch.reservation"]))
            for model in (SlurmOptions, RayOptions)
        ),
        answer_engine,
    ),
    Place("environment: executor and its options", 2, st.tuples(typed, typed), answer_environment),
)
