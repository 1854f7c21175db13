"""Write protocols.md, commands.md, and the generated tables in README and in these pages.

python docs/generate.py (`make docs`)
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from senet_ablate.cli.main import main as cli
from senet_ablate.files import write_atomic
from senet_ablate.report.write import fill
from senet_ablate.spec import ablation, claims, network, protocol
from senet_ablate.spec.loading import load_protocol

DOCS = Path(__file__).parent
ROOT = DOCS.parent
STUDY = "cifar10-lite"
"""The study whose tables the pages name without a study."""

PROTOCOL: dict[str, type[BaseModel]] = {
    "Top level": protocol.Protocol,
    "`[network]`": network.Network,
    "`[data]`": protocol.DataConfig,
    "`[recipe]`": protocol.Recipe,
    "`[recipe.schedule]`": protocol.Schedule,
    "`[recipe.augmentation]`": protocol.Augmentation,
}
TABLE: dict[str, type[BaseModel]] = {
    "Top level": ablation.Ablation,
    "`[[rows]]`": ablation.Row,
    "`se = { … }`": network.SEConfig,
    "`placement = { … }`": network.Placement,
    "`paper = { … }`": ablation.PaperFigures,
    "`[[claims]]`": claims.Claim,
    **{
        f'`{{ kind = "{get_args(atom.model_fields["kind"].annotation)[0]}", … }}`': atom
        for atom in get_args(claims.Atom)
    },
}
HEADER = "<!-- Written by docs/generate.py; the meanings are the attribute docstrings in senet_ablate/spec/. -->"


def protocols_page() -> str:
    """Every key of a protocol, of a table and of the rules, with its values, default and meaning."""
    parts = [
        HEADER,
        "# Protocols and tables in TOML",
        "A study is declared in two kinds of files. A *protocol* (`ablations/protocols/*.toml`) is what all variants "
        "share. A *table* (`ablations/*.toml`) lists variants that differ in one factor, and the findings to test. "
        "Unknown keys, wrong types and values out of range are refused before anything is trained; the message names "
        "file, row, key and value.",
        "To use a protocol of your own, copy one, change it, and name the file: `--protocol path/to/mine.toml`, or "
        "`make ablate-ratio PROTOCOL=path/to/mine.toml`. To change one key, use `--set recipe.epochs=60`. To add a "
        "table, put a file beside the others, or name your own folder with `--ablations`.",
        "## The protocols of the suite",
        _protocols(),
        "## Protocol",
        *_sections(PROTOCOL),
        "## Table",
        *_sections(TABLE),
        "## Rules of the verdicts",
        "Set in the plan: `senet-ablate plan --rule KEY=VALUE --write`. [statistics.md](statistics.md) explains them.",
        _keys(claims.Rules),
    ]
    return "\n\n".join(parts) + "\n"


def _protocols() -> str:
    """Every protocol in a line; digits, the default, first."""
    declared = ROOT / "ablations"
    names = sorted(
        (path.stem for path in (declared / "protocols").glob("*.toml")), key=lambda name: (name != "digits", name)
    )
    lines = ["| name | description | network | epochs | seeds |", "| --- | --- | --- | --- | --- |"]
    for each in (load_protocol(declared, name) for name in names):
        width = f", width {each.network.width}" if "width" in each.network.model_fields_set else ""
        cells = (f"`{each.name}`", each.description, f"{each.network.backbone}{width}", each.recipe.epochs, each.seeds)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _sections(models: dict[str, type[BaseModel]]) -> list[str]:
    return [text for heading, model in models.items() for text in (f"### {heading}", _intro(model), _keys(model))]


def _intro(model: type[BaseModel]) -> str:
    return inspect.cleandoc(model.__doc__ or "").partition("\n\n")[0].replace("\n", " ")


def _keys(model: type[BaseModel]) -> str:
    meanings = _meanings(model)
    lines = ["| key | values | default | meaning |", "| --- | --- | --- | --- |"]
    for name, info in model.model_fields.items():
        if get_origin(info.annotation) is Literal and len(get_args(info.annotation)) == 1:
            continue  # the heading has it
        cells = (f"`{name}`", _values(info.annotation, info.metadata), _default(info), meanings[name])
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines)


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """The docstring under each attribute of a class."""
    (tree,) = ast.parse(inspect.getsource(model)).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, below in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            found[ast.unparse(field.target)] = " ".join(str(below.value.value).split())
    return found


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.default
    if value is None:
        return "none"
    if isinstance(value, BaseModel) or value == ():
        return "empty"
    return f"`{json.dumps(value)}`"


def _values(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """A field's type and bounds in words; None, which TOML does not have, is left out."""
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return _values(
            inner, [part for each in more for part in (each.metadata if isinstance(each, FieldInfo) else ())]
        )
    if get_origin(annotation) in (Union, UnionType):
        parts = dict.fromkeys(_values(part) for part in get_args(annotation) if part is not NoneType)
        return " or ".join(parts) + _bounds(metadata)
    if get_origin(annotation) is Literal:
        return ", ".join(f'`"{value}"`' for value in get_args(annotation))
    if get_origin(annotation) is tuple:
        inner = _values(get_args(annotation)[0])
        if get_origin(get_args(annotation)[0]) is Literal:
            return f"list from {inner}"
        words = inner.partition(",")[0]
        is_table = get_origin(get_args(annotation)[0]) is tuple  # pairs of a key and a value
        return "table" if is_table else f"list of {words}s"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "table"
    return {int: "whole number", float: "number", bool: "true, false", str: "text"}[annotation] + _bounds(metadata)


def _bounds(metadata: Sequence[Any]) -> str:
    words = {
        annotated_types.Ge: ("ge", "at least {}"),
        annotated_types.Gt: ("gt", "above {}"),
        annotated_types.Le: ("le", "at most {}"),
        annotated_types.Lt: ("lt", "below {}"),
        annotated_types.MultipleOf: ("multiple_of", "a multiple of {}"),
    }
    known = [(each, *words[type(each)]) for each in metadata if type(each) in words]
    return "".join(f", {text.format(f'{getattr(each, name):,}')}" for each, name, text in known)


def commands_page() -> str:
    """What `--help` prints of every command."""
    parts = [
        "<!-- Written by docs/generate.py from the help texts in senet_ablate/cli/. -->",
        "# Commands",
        "`make` targets call the program `senet-ablate` in `.venv/bin/`; their variables are its options (`SEEDS=5` is "
        "`--seeds 5`), and `ARGS='…'` passes anything else. This page is what `senet-ablate --help` and `senet-ablate "
        "COMMAND --help` print.",
        _help("senet-ablate", cli),
        *(f"## {name}\n\n{_help(f'senet-ablate {name}', command)}" for name, command in cli.commands.items()),
    ]
    return "\n\n".join(parts) + "\n"


def _help(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=name, terminal_width=100, help_option_names=["-h", "--help"])
    return f"```text\n{command.get_help(context)}\n```"


def pages() -> dict[Path, str]:
    """Every page with a generated part, as it should be."""
    written = {DOCS / "protocols.md": protocols_page(), DOCS / "commands.md": commands_page()}
    for page in (ROOT / "README.md", *sorted(DOCS.glob("*.md"))):
        text = page.read_text(encoding="utf-8")
        if page not in written and "<!-- generated: " in text:
            written[page] = with_counts(fill(text, ROOT / "reports", STUDY))
    return written


def with_counts(text: str) -> str:
    """The text with as many faults and bad inputs as the last `make chaos` and `make bad-inputs` report."""
    chaos, inputs = (ROOT / "reports" / name for name in ("chaos/chaos.json", "bad-inputs/bad-inputs.md"))
    faults = json.loads(chaos.read_text(encoding="utf-8"))["injected"]
    tried = re.search(r"^([\d,]+) different", inputs.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert tried is not None
    text = re.sub(r"(damages files )\d+( times)", rf"\g<1>{faults}\2", text)
    return re.sub(r"(tries )[\d,]+( generated mistakes)", rf"\g<1>{tried[1]}\2", text)


if __name__ == "__main__":
    for page, text in pages().items():
        write_atomic(page, text)
