"""Templates filled: Markdown and HTML from the same content."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Collection
from functools import cache, partial
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from senet_ablate.report.escape import markdown, visible


def render(template: str, **content: Any) -> str:
    """Fill a template of `templates/` by its file name; what goes into HTML is escaped."""
    return _environment(html=".html" in template).get_template(template).render(**content)


def markdown_table(text: pd.DataFrame, left: Collection[str] = ()) -> str:
    """Cells that are text already as a Markdown table; the first column and those in `left` are left-aligned."""
    cells = text.map(_cell)
    sides = ["left" if place == 0 or name in left else "right" for place, name in enumerate(cells.columns)]
    return cells.to_markdown(index=False, disable_numparse=True, colalign=sides)


def data_uri(content: str, kind: str = "text/plain") -> Markup:
    """A file inside a page: the link works wherever the page goes."""
    return Markup(f"data:{kind};base64,{base64.b64encode(content.encode()).decode()}")


@cache
def _environment(*, html: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader("senet_ablate.report"),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=html,
        keep_trailing_newline=True,
        finalize=partial(_harmless, clean=visible if html else markdown),  # HTML is escaped as well
    )
    environment.filters["inline"] = _inline_markdown
    environment.filters["slug"] = lambda text: str(text).replace(" ", "-")
    environment.filters["cell"] = _cell
    environment.filters["grid"] = markdown_table
    environment.filters["data_uri"] = data_uri
    assert environment.loader is not None
    environment.globals["style"] = Markup(environment.loader.get_source(environment, "style.css")[0])
    return environment


def _harmless(value: Any, clean: Callable[[str], str]) -> Any:
    """A value that enters a template."""
    return clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _cell(text: object) -> str:
    return str(text).replace("|", r"\|").replace("\n", " ")


def _inline_markdown(text: str) -> Markup:
    """Bold, code and links; a link leads to a file beside the page or to the web, never runs anything."""
    bold = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", str(escape(visible(text))))
    linked = re.sub(r"\[([^]]+)\]\(((?:https?://)?[\w./#-]+)\)", r'<a href="\2">\1</a>', bold)
    return Markup(re.sub(r"`(.+?)`", r"<code>\1</code>", linked))
