"""What a stranger's file brings into a page or a table, as text that nothing takes for a command."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import pandas as pd

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Characters that are not seen but act: those of terminals, and those that turn the direction of writing."""

TAG = re.compile(r"<(?=[A-Za-z/!?])")
LINK = re.compile(r"\]\((?!(?:https?://)?[\w./#%+,~@=-]*\))")
"""The middle of a Markdown link that leads neither to the web nor to a file beside the page."""

REFERENCE = re.compile(r"^( {0,3})\[(?=[^]\n]*\]:)", re.M)


def visible(text: str) -> str:
    r"""The text with its control characters spelt, such as `\x1b`; lines and tabs stay."""
    return CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def markdown(text: str) -> str:
    """The text as Markdown without raw HTML and without links that could run something; twice is as once."""
    return REFERENCE.sub(r"\1\\[", LINK.sub(r"]\(", TAG.sub("&lt;", visible(text))))


def csv_text(frame: pd.DataFrame, float_format: str = "%.10g") -> str:
    """The frame as CSV, by default with ten significant digits, in which processors agree.

    A cell that a spreadsheet would compute begins with an apostrophe, as spreadsheets have it.
    """
    texts = {name: frame[name].map(_cell) for name in frame.columns if not pd.api.types.is_numeric_dtype(frame[name])}
    cells = frame.assign(**texts).rename(columns=_cell)
    return cells.to_csv(index=False, lineterminator="\n", float_format=float_format)


def _cell(value: Hashable) -> Any:
    if not isinstance(value, str):
        return value
    text = visible(value).replace("\t", r"\t").replace("\n", r"\n")
    return f"'{text}" if text.lstrip()[:1] in ("=", "+", "-", "@") and not _is_number(text) else text


def _is_number(text: str) -> bool:
    """Whether it is a number, or several: the single seeds of a comparison."""
    try:
        return bool([float(part) for part in text.split()])
    except ValueError:
        return False
