"""The one exception for a mistake that the user can mend; the shell prints it without a traceback."""

from __future__ import annotations

import difflib
import pickle
import unicodedata
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


class UserError(Exception):
    """Something the user typed, wrote or pointed to is wrong.

    The message names the value, its place and what would be right.
    """


def not_installed(extra: str) -> str:
    """The end of a message on a library of pyproject.toml's extra of that name."""
    return f"not installed; in the clone of senet-ablate: pip install '.[{extra}]'"


def reason(error: Exception) -> str:
    """Why a file cannot be read, in one line; never a library's advice to load whatever is in it."""
    text = str(error).strip() or type(error).__name__
    if isinstance(error, pickle.UnpicklingError) or "weights_only" in text or "pickle" in text:
        return "it holds Python objects other than tensors and numbers, or is cut off; nothing of it was executed"
    return text.splitlines()[0]


def is_plain(text: str) -> bool:
    """Whether a text can be told again: one line of UTF-8, without control characters."""
    return not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text)


def look_up(known: Mapping[str, T], name: str, what: str) -> T:
    """What a name of the user's stands for.

    Raises:
        UserError: it stands for nothing; the message begins with `what`, such as `no table`.
    """
    if name not in known:
        raise UserError(f"{what} {name!r}; {did_you_mean(name, known)}")
    return known[name]


def did_you_mean(word: object, allowed: Iterable[object]) -> str:
    """Say what `word` could have been: the nearest allowed spelling, then all of them."""
    names = [str(name) for name in allowed]
    lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(str(word).lower(), lower, n=1)
    hint = f"did you mean {lower[near[0]]!r}? " if near else ""
    return f"{hint}allowed: {', '.join(names)}"
