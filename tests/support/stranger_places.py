"""What a stranger's archive has in the place of files, or says in them: links, pipes, keys without end, commands."""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from helpers import SE
from hypothesis import strategies as st
from places import SET_ASIDE, Place, named, scratch, shell
from sound import begun, write_sound

from senet_ablate.report.escape import csv_text, visible
from senet_ablate.report.render import _environment
from senet_ablate.report.tables import latex
from senet_ablate.results.store import Study

# --- something else in the place of a file ---


def _sparse(path: Path, target: str) -> None:
    with path.open("wb") as file:
        file.truncate(2**34 + len(target))


STRANGE: dict[str, Callable[[Path, str], None]] = {
    "link": lambda path, target: path.symlink_to(Path("..") / "outside" / target),
    "link far away": lambda path, target: path.symlink_to(Path("/") / target),
    "endless": lambda path, target: path.symlink_to("/dev/zero"),
    "pipe": lambda path, target: os.mkfifo(path),
    "huge": _sparse,
    "folder": lambda path, target: (path / (target or "x")).mkdir(parents=True),
}
OF_A_STUDY = ("study.json", "plan.json", "notes.md", "latency.json", "conflicts")
OF_A_RUN = ("record.json", "curve.csv", "predictions.npz", ".")
DECLARED = "own.toml"
targets = st.text(st.characters(codec="utf-8", exclude_characters="\x00/"), min_size=1, max_size=30).filter(
    lambda name: name.strip(".") and len(name.encode()) < 200
)


def answer_strange(typed_in: tuple[str, str, str]) -> str | None:
    """It is refused and named; what a link leads to stays as it is and unseen."""
    name, what, target = typed_in
    with scratch() as folder:
        outside = folder / "outside"
        outside.mkdir()
        study = begun(Study(folder / "other"))
        run = write_sound(study, SE, 0)
        home = study.root if name in OF_A_STUDY else folder if name == DECLARED else run.path
        path = home / name if name != "." else home
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        STRANGE[what](path, target)
        before = sorted(outside.iterdir())
        here = ("--study", "other", "--results", str(folder))
        if name == DECLARED:
            told = shell("status", "ratio", "--rows", "r2", "--protocol", str(path))
        elif name in ("notes.md", "latency.json"):
            told = shell("report", "ratio", *here, "--reports", str(folder / "reports"), work=())
        else:
            told = shell("verify", "other", "--results", str(folder))
        assert sorted(outside.iterdir()) == before
        if told is None and "link" not in what and name in (".", "conflicts"):
            return SET_ASIDE  # no folder there, so no runs
        assert told is not None, typed_in
        return named(told, path.name, str(study.root))


# --- keys without end ---

parts = st.sampled_from(["a", "a-b", "1", '"a.b"', "'x'", "ä"])


@st.composite
def deep_keys(draw: st.DrawFn) -> tuple[str, bool]:
    """A key of 17 to 50,000 parts in one of the places where TOML has keys, and whether it is typed."""
    key = draw(st.sampled_from([".", " . ", ".\t"])).join(
        draw(st.lists(parts, min_size=1, max_size=9)) * draw(st.integers(17, 50_000 // 9))
    )
    if draw(st.integers(0, 3)) == 0:
        return key.replace('"', "").replace("'", ""), True
    form = draw(st.sampled_from(["{} = 1", "[{}]", "[[{}]]", "x = {{ {} = 1 }}", "x = [{{ {} = 1 }}]"]))
    return f"# {draw(st.text('ab', max_size=5))}\n" + form.format(key), False


def answer_deep(typed_in: tuple[str, bool]) -> str | None:
    text, is_typed = typed_in
    if is_typed:
        return named(shell("status", "ratio", "--rows", "r2", f"--set={text}=1"), "--set")
    with scratch() as folder:
        path = folder / DECLARED
        path.write_text(text, encoding="utf-8")
        return named(shell("status", "ratio", "--rows", "r2", "--protocol", str(path)), str(path))


# --- texts that are commands for what shows them ---

BAIT = (
    "=1+1", "+1+1", "-1+1", "@SUM(1)", "\t=1", "\r=1", '=cmd|"/c x"!A1', "<script>alert(1)</script>",
    "<img src=x onerror=x>", "<!--", "</td>",
    "[x](javascript:x)", "![x](data:x)", "\n[x]: javascript:x\n", "\x1b[2J", "\x1b]0;x\x07", "\x9b1m",
    "\u202e", "\u2066", "\x00", "\x7f", "\\input{x}", "\\write18{x}", "$x$", "{{ 1 }}", "{% x %}", "|",
    "`", "x", " ", "ä",
)  # fmt: skip
texts = st.lists(st.sampled_from(BAIT) | st.text(max_size=4), min_size=1, max_size=5).map("".join)
ACTS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def answer_text(text: str) -> str | None:
    """It is shown, in a spelling that nothing obeys."""
    text = text.encode(errors="ignore").decode()
    rows = list(csv.reader(io.StringIO(csv_text(pd.DataFrame({"name": [text]})))))
    cell = rows[1][0] if len(rows) > 1 and rows[1] else ""
    assert cell.lstrip()[:1] not in ("=", "@"), cell
    assert cell.lstrip()[:1] not in ("+", "-") or float(cell) is not None, cell
    html = _environment(html=True).from_string("{{ x }} {{ x | inline }}").render(x=text)
    page = _environment(html=False).from_string("{{ x }}").render(x=text)
    for shown in (cell, html, page, latex(text)):
        assert not ACTS.search(shown), shown
    assert not re.search(r"<(?!/?(?:strong|code|a)\b)[a-zA-Z!/?]", html), html
    assert not re.search(r"<[a-zA-Z!/?]", page), page
    assert not re.search(r"\]\((?:javascript|data):", page), page
    assert not re.search(r"(?<!\\)\\(?:input|write)", latex(text).replace("\\textbackslash{}", "")), text
    return None if visible(text) == text == cell == page == html.partition(" ")[0] else SET_ASIDE


STRANGERS = (
    Place(
        "links, pipes, devices, folders and huge files for files",
        8,
        st.tuples(st.sampled_from((*OF_A_STUDY, *OF_A_RUN, DECLARED)), st.sampled_from(sorted(STRANGE)), targets),
        answer_strange,
    ),
    Place("keys of very many parts", 2, deep_keys(), answer_deep),
    Place("texts that are commands elsewhere", 5, texts, answer_text),
)
