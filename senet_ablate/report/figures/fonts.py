"""Fonts for names in letters that the figures' own font lacks, of those that are installed."""

from __future__ import annotations

import functools
import logging
import re
import unicodedata
from collections.abc import Iterable, Mapping

from matplotlib import font_manager, ft2font

logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # it tells of each weight that a font lacks

OWN = "DejaVu Sans"
"""Matplotlib's own, in all figures: Latin, Greek, Cyrillic, Arabic, Hebrew and a few more."""

PLACEHOLDERS = re.compile(r"last ?resort|notdef|blank", re.IGNORECASE)
"""Fonts that have a box, or nothing, for every letter."""

UNDRAWN = {"Cc", "Cf", "Zs", "Zl", "Zp"}
"""Unicode's categories of control characters, joiners and spaces."""

SHAPES = hasattr(ft2font, "__libraqm_version__")
"""Whether matplotlib joins letters and writes from right to left; before version 3.11 it does not."""


def fonts_for(texts: Iterable[str]) -> tuple[list[str], set[str]]:
    """Families of fonts that together have the letters of the texts, and those texts that cannot be drawn.

    After our own come those that have most of the letters still missing, without serifs where there is a choice.
    """
    wanted = set(texts)
    unseen = set() if SHAPES else {text for text in wanted if _is_shaped(text)}
    letters = frozenset(letter for text in wanted for letter in text if unicodedata.category(letter) not in UNDRAWN)
    missing, families = letters - _has(OWN, letters), [OWN]
    installed = sorted({font.name for font in font_manager.fontManager.ttflist if not PLACEHOLDERS.search(font.name)})
    while missing:
        best = max(installed, key=lambda name: (len(_has(name, missing)), "sans" in name.lower()))
        if not _has(best, missing):
            break
        families.append(best)
        missing -= _has(best, missing)
    return families, unseen | {text for text in wanted if missing & set(text)}


def _is_shaped(text: str) -> bool:
    """Whether its letters join, combine or run from right to left (Arabic, Hebrew, the scripts of India)."""
    return any(
        unicodedata.bidirectional(letter) in ("R", "AL") or unicodedata.category(letter) in ("Mn", "Mc")
        for letter in unicodedata.normalize("NFC", text)
    )


@functools.lru_cache(maxsize=4096)
def _has(family: str, letters: frozenset[str]) -> frozenset[str]:
    """Those of the letters that a font has; a font of bitmaps alone, or one that cannot be read, has none."""
    try:
        properties = font_manager.FontProperties(family=[family])
        font = font_manager.get_font(font_manager.findfont(properties, fallback_to_default=False))
    except (ValueError, OSError, RuntimeError):
        return frozenset()
    return frozenset(letter for letter in letters if font.scalable and font.get_char_index(ord(letter)))


def numbered(texts: Iterable[str]) -> dict[str, str]:
    """What to draw for each text: itself, or its number among them where no font can show it."""
    every = list(dict.fromkeys(texts))
    _, unseen = fonts_for(every)
    return {text: f"({number})" if text in unseen else text for number, text in enumerate(every, 1)}


def key_in_words(drawn: Mapping[str, str]) -> str:
    """What numbers in a figure stand for, in a sentence for beside it; empty where there is none."""
    told = ", ".join(f"{number} {text}" for text, number in drawn.items() if number != text)
    return f"No installed font can show these names, so figures number them: {told}." if told else ""
