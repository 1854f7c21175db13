"""A report's folder: its files as they are written, and its figures in all their forms."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from senet_ablate.files import write_atomic
from senet_ablate.report.escape import csv_text, markdown, visible
from senet_ablate.report.figures.style import COLUMN, PAGE, save


@dataclass(frozen=True)
class Picture:
    """A figure: the name of its files under `figures/`, its SVG at two widths, its data as CSV, itself in words.

    `key` says what numbers in it stand for that no font could show.
    """

    name: str
    page: str
    column: str
    data: str
    alt: str
    key: str = ""

    def inline(self, form: Literal["page", "column"]) -> Markup:
        """The figure as part of a page: named for those who cannot see it, its ids its own among many figures."""
        svg = self.page if form == "page" else self.column
        svg = re.sub(r'\b(id="|url\(#|href="#)', rf"\1{self.name}-{form}-", svg[svg.index("<svg") :])
        svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
        svg = re.sub(r"\s*\n\s*", " ", svg)
        label = f'<svg class="{form}" role="img" aria-label="{escape(visible(self.alt))}"'
        return Markup(svg.replace("<svg", label, 1).strip())


class ReportFolder:
    """Writes into one folder and remembers what it wrote: `files`, and `pictures` by name.

    No link is followed below `inside`, by default the folder around it.
    """

    def __init__(self, home: Path, inside: Path | None = None) -> None:
        self.home, self.inside = home, inside or home.parent
        self.files: list[Path] = []
        self.pictures: dict[str, Picture] = {}

    def write(self, name: str, content: str | bytes) -> None:
        """Write one file as a whole; Markdown without raw HTML but for the page, whose template has some."""
        if isinstance(content, str) and name.endswith(".md") and name != "REPORT.md":
            content = markdown(content)
        write_atomic(self.home / name, content, inside=self.inside)
        self.files.append(self.home / name)

    def picture(
        self,
        name: str,
        shown: pd.DataFrame,
        alt: str,
        draw: Callable[..., Figure],
        *,
        into: str = "figures/",
        float_format: str = "%.6g",
    ) -> None:
        """Write what `draw` draws, at both widths as SVG and PNG, and its data as CSV; nothing without data."""
        if shown.empty:
            return
        svgs = []
        for form, width in (("", PAGE), ("_column", COLUMN)):
            figure = draw(width=width)
            svgs.append(save(figure, "svg"))
            self.write(f"{into}{name}{form}.svg", svgs[-1])
            self.write(f"{into}{name}{form}.png", save(figure, "png"))
        data = csv_text(shown, float_format)
        self.write(f"{into}{name}.csv", data)
        self.pictures[name] = Picture(name, svgs[0].decode(), svgs[1].decode(), data, alt)
