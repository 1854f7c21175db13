"""The base of all specifications, and TOML read strictly.

Each mistake names file, row, key, value and what would be right.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, ValidationError, model_serializer

from senet_ablate.errors import UserError, did_you_mean
from senet_ablate.files import decode, read_file

Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
FileName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]


class Spec(BaseModel):
    """Base of every specification: immutable, strict about types, and closed to unknown keys."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="constants"
    )

    def refuse_unused(self, keys: Iterable[str], beside: str) -> None:
        """Refuse keys that have no meaning beside the value of another; for validators.

        Raises:
            ValueError: one has not its default.
        """
        for key in keys:
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key} has no meaning {beside}; leave it out")


class Digested(Spec):
    """A specification of which a digest is kept: a field added later must not change the digests of old files.

    Name such a field in `LATER`; where it has its default it is left out of what is written and of what is hashed.
    """

    LATER: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = write(self)
        fields = type(self).model_fields
        unused = {name for name in self.LATER if getattr(self, name) == fields[name].default}
        return {name: value for name, value in written.items() if name not in unused}


def flat(tree: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """The leaves of nested mappings by their dotted names."""
    leaves: dict[str, object] = {}
    for key, value in tree.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return leaves


SpecT = TypeVar("SpecT", bound=BaseModel)


MOST_BYTES = 2**20
"""Of a declaration; the longest here has six thousand."""

DEEP = re.compile(r"""(?<![\w-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){16}""")
"""A key of more parts than any declaration has: tomllib's time and memory grow with the square of their number."""


def _parse(text: str) -> dict[str, Any]:
    if deep := DEEP.search(text):
        line = text.count("\n", 0, deep.start()) + 1
        raise ValueError(f"a key of more than 16 parts, {deep[0][:20]}… (at line {line})")
    return tomllib.loads(text)


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file: in UTF-8, with a byte order mark or without, or in UTF-16 with one.

    Raises:
        UserError: it cannot be read or is not TOML; the message has the line and column.
    """
    try:
        text, _, _ = decode(read_file(path, MOST_BYTES))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    try:
        return _parse(text.replace("\r\n", "\n").replace("\r", "\n"))
    except (ValueError, RecursionError) as error:  # not only TOMLDecodeError: of a number with thousands of digits
        raise UserError(f"{path}: not valid TOML: {error}") from None


def parse_value(text: str) -> Any:
    """Read one value as TOML would (`3`, `0.1`, `true`, `[1, 2]`); bare words are strings."""
    try:
        found = _parse(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return found["value"] if len(found) == 1 else text  # a second line would be another key


def key_value(option: str, text: str, example: str) -> tuple[str, Any]:
    """Key and value of an option that is given as `KEY=VALUE`.

    Raises:
        UserError: it is not; the message has an example.
    """
    key, equals, value = text.partition("=")
    if not equals or not all(key.strip().split(".")):
        raise UserError(f"{option} {text!r}: expected KEY=VALUE, for example {example}")
    return key.strip(), parse_value(value.strip())


def validate(model: type[SpecT], raw: Mapping[str, Any], place: str) -> SpecT:
    """Build `model` from a parsed TOML document.

    Raises:
        UserError: one line per mistake, each with `place`, row, key, value and what would be right.
    """

    def refuse(value: object) -> None:
        raise UserError(f"{place}: {value}: dates and times have no place here; a text goes in quotes")

    try:
        # Through JSON, whose arrays pydantic takes for tuples in strict mode.
        text = json.dumps(raw, default=refuse)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: a number that is too long, or values nested too deeply: {error}") from None
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        details = [detail for detail in error.errors() if not _follows(detail, error.errors())]
        raise UserError("\n".join(_explain(model, raw, place, detail) for detail in details)) from None


def refuse_twice(names: Sequence[str], what: str) -> None:
    """Refuse a list that names something twice; for validators.

    Raises:
        ValueError: it does.
    """
    if len(set(names)) < len(names):
        raise ValueError(f"two {what} have the same id among {', '.join(names)}")


def _follows(detail: Any, details: Iterable[Any]) -> bool:
    """Whether a list is too short only because pydantic left out the entries with a mistake of their own."""
    loc = detail["loc"]
    return detail["type"] == "too_short" and any(other["loc"][: len(loc)] == loc != other["loc"] for other in details)


def _explain(model: type[BaseModel], raw: Mapping[str, Any], place: str, detail: Any) -> str:
    loc, problem, given = list(detail["loc"]), detail["type"], detail["input"]
    where = place
    owner: type[BaseModel] = model
    if len(loc) > 1 and isinstance(loc[1], int):  # an entry of a list of tables: name it as its author does
        entry = raw[loc[0]][loc[1]]
        name = entry.get("id", f"number {loc[1] + 1}") if isinstance(entry, Mapping) else f"number {loc[1] + 1}"
        where = f"{place}, {str(loc[0]).removesuffix('s')} {name!r}"
        owner = next(iter(_inner_models(owner, loc[0])), owner)
        loc = loc[2:]
    keys, owner = _keys_and_owner(owner, loc)
    expected = detail.get("ctx", {}).get("expected", "")
    if problem in ("union_tag_not_found", "union_tag_invalid"):  # told of the whole table: turn to the key
        keys.append(detail["ctx"]["discriminator"].strip("'"))
        problem = "missing" if problem == "union_tag_not_found" else "literal_error"
        given, expected = given.get(keys[-1]), detail["ctx"].get("expected_tags", "")
    key = ".".join(map(str, keys))
    value = "" if problem == "missing" else f" = {_short(given)}"
    match problem:
        case "extra_forbidden":
            why = f"unknown key; {did_you_mean(loc[-1], owner.model_fields)}"
        case "missing":
            why = "missing, and it has no default"
        case "literal_error":
            why = did_you_mean(given, re.findall(r"'([^']*)'", expected))
        case _:
            why = detail["msg"].removeprefix("Value error, ")
            why = why[0].lower() + why[1:].replace("Input should", "it should")
            why = why.replace("input should", "it should", 1)
    return f"{where}: {key}{value if key else ''}{': ' if key else ''}{why}"


def _keys_and_owner(owner: type[BaseModel], loc: Sequence[int | str]) -> tuple[list[int | str], type[BaseModel]]:
    """The keys of `loc` as their author wrote them, and the specification that the last one belongs to."""
    keys: list[int | str] = []
    inner: list[type[BaseModel]] = []
    for part in loc:
        if isinstance(part, int):
            keys.append(part)
            continue
        if len(inner) > 1:  # pydantic names the one of several specifications by its `kind`, which is no key
            inner = [model for model in inner if part in get_args(model.model_fields["kind"].annotation)]
            continue
        owner = inner[0] if inner else owner
        keys.append(part)
        inner = _inner_models(owner, part)
    return keys, owner


def _inner_models(owner: type[BaseModel], field: int | str) -> list[type[BaseModel]]:
    """The specifications that `field` of `owner` may hold, straight, optional or in a list."""

    def models_in(annotation: Any) -> list[type[BaseModel]]:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return [annotation]
        return [model for part in get_args(annotation) for model in models_in(part)]

    info = owner.model_fields.get(str(field))
    return [] if info is None else models_in(info.annotation)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "…"
