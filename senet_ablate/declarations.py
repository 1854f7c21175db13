"""Read TOML declarations strictly: each mistake names file, row, key, value and what would be right."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from senet_ablate.errors import UserError, did_you_mean

SpecT = TypeVar("SpecT", bound=BaseModel)


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file.

    Raises:
        UserError: it cannot be read or is not TOML; the message has the line and column.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: not valid TOML: {error}") from None


def parse_value(text: str) -> Any:
    """Read one value as TOML would (`3`, `0.1`, `true`, `[1, 2]`); bare words are strings."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def validate(model: type[SpecT], raw: Mapping[str, Any], place: str) -> SpecT:
    """Build `model` from a parsed TOML document.

    Raises:
        UserError: one line per mistake, each with `place`, row, key, value and what would be right.
    """

    def refuse(value: object) -> None:
        raise UserError(f"{place}: {value}: dates and times have no place here; a text goes in quotes")

    try:
        # Through JSON, whose arrays pydantic takes for tuples in strict mode.
        return model.model_validate_json(json.dumps(raw, default=refuse))
    except ValidationError as error:
        lines = [_explain(model, raw, place, detail) for detail in error.errors()]
        raise UserError("\n".join(lines)) from None


def _explain(model: type[BaseModel], raw: Mapping[str, Any], place: str, detail: Any) -> str:
    loc = list(detail["loc"])
    where = place
    owner: type[BaseModel] = model
    if len(loc) > 1 and isinstance(loc[1], int):  # an entry of a list of tables: name it as its author does
        entry = raw[loc[0]][loc[1]]
        name = entry.get("id", f"number {loc[1] + 1}") if isinstance(entry, Mapping) else f"number {loc[1] + 1}"
        where = f"{place}, {str(loc[0]).removesuffix('s')} {name!r}"
        owner = _inner_model(owner, str(loc[0])) or owner
        loc = loc[2:]
    for part in loc[:-1]:
        owner = _inner_model(owner, str(part)) or owner
    key = ".".join(map(str, loc))
    value = "" if detail["type"] == "missing" else f" = {_short(detail['input'])}"
    match detail["type"]:
        case "extra_forbidden":
            why = f"unknown key; {did_you_mean(loc[-1], owner.model_fields)}"
        case "missing":
            why = "missing, and it has no default"
        case "literal_error":
            why = did_you_mean(detail["input"], re.findall(r"'([^']*)'", detail["ctx"]["expected"]))
        case _:
            why = detail["msg"].removeprefix("Value error, ")
            why = why[0].lower() + why[1:].replace("Input should", "it should")
            why = why.replace("input should", "it should", 1)
    return f"{where}: {key}{value if key else ''}{': ' if key else ''}{why}"


def _inner_model(owner: type[BaseModel], field: str) -> type[BaseModel] | None:
    """The specification that `field` of `owner` holds, straight, optional or in a list."""
    info = owner.model_fields.get(field)
    if info is None:
        return None
    candidates = [info.annotation, *getattr(info.annotation, "__args__", ())]
    return next((kind for kind in candidates if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "…"
