"""Names in letters that the figures' own font lacks: other fonts, or numbers with a key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from helpers import ABLATION
from matplotlib import font_manager

from senet_ablate.analysis.study import assess
from senet_ablate.report.escape import visible
from senet_ablate.report.excitation import write_excitation
from senet_ablate.report.figures import fonts
from senet_ablate.report.figures.fonts import OWN, fonts_for, key_in_words, numbered
from senet_ablate.report.figures.gates import heat_frame, plot_heat
from senet_ablate.report.figures.style import save
from senet_ablate.report.figures.table import plot_table
from senet_ablate.report.tables import build_table
from senet_ablate.results.gates import BlockExcitation
from senet_ablate.results.store import Study

CAT, DOG, BIRD = "\ue001ねこ", "犬", "鳥"
"""The first begins with a letter of nobody's, which no font of the machine has by chance."""

OWN_LETTERS = "Käfer", "γάτα", "кошка", "قطة"


def make_font(path: Path, family: str, letters: str) -> Path:
    """A font whose letters are boxes."""
    pen = TTGlyphPen(None)
    pen.moveTo((100, 0))
    for corner in ((100, 700), (900, 700), (900, 0)):
        pen.lineTo(corner)
    pen.closePath()
    names = [".notdef", *(f"u{ord(letter):04x}" for letter in letters)]
    builder = FontBuilder(1000)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(letter): f"u{ord(letter):04x}" for letter in letters})
    builder.setupGlyf(dict.fromkeys(names, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Install a font for one test; of the machine's own only matplotlib's are there."""
    shipped = str(Path(font_manager.__file__).parent)
    there = [font for font in font_manager.fontManager.ttflist if font.fname.startswith(shipped)]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", there)
    fonts._has.cache_clear()
    font_manager.fontManager._findfont_cached.cache_clear()

    def add(family: str, letters: str) -> None:
        font_manager.fontManager.addfont(make_font(tmp_path / f"{family}.ttf", family, letters))

    return add


def made(classes: int) -> BlockExcitation:
    gates = np.random.default_rng(0).random((classes, 4, 6))
    counts = np.full(classes, 4)
    return BlockExcitation("SE_2_1", "sigmoid", counts, gates.sum(1), (gates**2).sum(1), np.abs(gates).sum((0, 1)))


def test_the_own_font_is_enough_for_its_letters() -> None:
    assert fonts_for(("no SE", *OWN_LETTERS)) == ([OWN], set() if fonts.SHAPES else {"قطة"})


def test_fonts_are_added_that_have_the_most_of_what_is_missing(install: Callable[[str, str], None]) -> None:
    install("A Few", "ね")
    install("Most", "\ue001ねこ犬")
    install("Last Resort", "\ue001ねこ犬鳥")
    assert fonts_for([CAT, DOG, "cat"]) == ([OWN, "Most"], set())
    assert fonts_for([CAT, BIRD]) == ([OWN, "Most"], {BIRD})
    install("Birds", "鳥")
    fonts._has.cache_clear()
    assert fonts_for([CAT, BIRD]) == ([OWN, "Most", "Birds"], set())


def test_a_figure_is_drawn_in_the_added_font_without_a_warning(install: Callable[[str, str], None]) -> None:
    install("Most", CAT + DOG)
    figure = plot_heat(heat_frame([made(2)], {CAT: 0, DOG: 1}), limits=None)
    labels = figure.axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == [CAT, DOG]
    assert all("Most" in label.get_fontfamily() for label in labels)
    assert save(figure, "png")
    assert save(figure, "svg")


def test_names_that_no_font_has_are_numbers_with_a_key_beside_the_figure(
    install: Callable[[str, str], None], tmp_path: Path
) -> None:
    every = {"cow": 0, CAT: 1, DOG: 2}
    assert numbered(every) == {"cow": "cow", CAT: "(2)", DOG: "(3)"}
    folder = tmp_path / "study" / "excitation" / "net"
    write_excitation(folder, ("a", "b"), [made(3)], every, [CAT, DOG], every)
    page = (folder / "excitation.md").read_text()
    assert f"number them: (2) {visible(CAT)}, (3) {DOG}." in page
    assert set(pd.read_csv(folder / "gates.csv")["class"]) == set(every), "the numbers beside it have the names"
    assert key_in_words(numbered(["cow"])) == ""


def test_without_shaping_what_needs_it_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "SHAPES", False)
    assert fonts_for(["قطة", "Käfer", "Ka\u0308fer"]) == ([OWN], {"قطة"})


def test_a_row_whose_label_no_font_has_is_called_by_its_id(install: Callable[[str, str], None], full: Study) -> None:
    rows = tuple(row.model_copy(update={"label": CAT}) if row.id == "r4" else row for row in ABLATION.rows)
    ablation = ABLATION.model_copy(update={"rows": rows})
    figure = plot_table(build_table(ablation, assess([ablation], full)))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()][:2] == ["r4", "r = 16"]
    assert save(figure, "png")
