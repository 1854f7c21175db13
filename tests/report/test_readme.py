"""The README: its figures are the program's, and its commands exist."""

import re
from pathlib import Path

import pytest

from senet_ablate.errors import UserError
from senet_ablate.report.write import fill
from senet_ablate.spec.loading import load_protocol

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
REPORTS = ROOT / "reports"


def test_generated_parts_are_what_the_report_says():
    assert README.count("<!-- generated: ") == 3
    assert fill(README, REPORTS, "cifar10-lite") == README, "run `make readme`"


def test_every_make_target_and_picture_exists():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)", README, flags=re.MULTILINE))
    for target in {one or other for one, other in targets}:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (ROOT / picture).is_file()


def test_every_protocol_is_described():
    for path in (ROOT / "ablations" / "protocols").glob("*.toml"):
        assert f"`{load_protocol(ROOT / 'ablations', path.stem).name}`" in README


def test_a_block_is_filled_from_its_table_and_an_unknown_one_is_an_error(tmp_path):
    for study, cell in (("first", 1), ("second", 2)):
        (tmp_path / study / "tables").mkdir(parents=True)
        (tmp_path / study / "tables" / "cost.md").write_text(f"# Title\n\n| a |\n|--:|\n| {cell} |\n")
    text = "before\n<!-- generated: cost -->\nold\n<!-- /generated -->\nafter\n"
    filled = "before\n<!-- generated: cost -->\n| a |\n|--:|\n| 1 |\n<!-- /generated -->\nafter\n"
    assert fill(text, tmp_path, "first") == filled
    assert fill(filled, tmp_path, "first") == filled
    with pytest.raises(UserError, match=r"'coost'.*did you mean 'cost'"):
        fill(text.replace("cost", "coost"), tmp_path, "first")
    other = text.replace("cost", "second/cost")
    assert fill(other, tmp_path, "first") == filled.replace("cost", "second/cost").replace("| 1 |", "| 2 |")
    with pytest.raises(UserError, match=r"'third/cost'"):
        fill(text.replace("cost", "third/cost"), tmp_path, "first")
