"""README and docs/: their figures are the program's; the commands, pictures and files that they name exist."""

import importlib.util
import re
from pathlib import Path

import pytest

from senet_ablate.analysis.study import assess
from senet_ablate.cli.console import show_table
from senet_ablate.cli.main import main as cli
from senet_ablate.errors import UserError
from senet_ablate.report.tables import build_table
from senet_ablate.report.write import fill
from senet_ablate.results.store import Study
from senet_ablate.spec.loading import load_ablations, load_protocol

ROOT = Path(__file__).parents[2]
REPORTS = ROOT / "reports"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {page: page.read_text(encoding="utf-8") for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))}


def test_the_readme_is_short_and_has_its_table_of_studies():
    assert len(README.splitlines()) <= 160
    assert re.findall(r"<!-- generated: (\S+) -->", README) == [
        "cifar10-lite/overview+cifar10-lite-controls/overview+digits-reference/overview"
    ]


def test_every_make_target_and_file_exists():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^[a-z-]+(?=:)", makefile, flags=re.MULTILINE))
    for page, text in PAGES.items():
        for one, other in re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)", text, flags=re.MULTILINE):
            assert (one or other) in targets, f"{page.name}: make {one or other}"
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
            assert link.startswith("https://") or (page.parent / link).is_file() or (page.parent / link).is_dir(), link


def test_every_command_and_its_options_exist():
    found = set()
    for page, text in PAGES.items():
        for line in re.findall(
            r"^ *`?senet-ablate ([a-z][^`\n]*)", text.replace("`senet-ablate", "\n`senet-ablate"), re.M
        ):
            name, *words = line.split("   ")[0].split()
            assert name in cli.commands, f"{page.name}: senet-ablate {line}"
            options = {option for parameter in cli.commands[name].params for option in (*parameter.opts, "--help")}
            for word in words:
                assert not word.startswith("--") or word.partition("=")[0] in options, f"{page.name}: {line}"
            found.add(name)
    assert found >= set(cli.commands), "docs/commands.md has an example of each"


def test_every_protocol_is_described():
    page = PAGES[ROOT / "docs" / "protocols.md"]
    for path in (ROOT / "ablations" / "protocols").glob("*.toml"):
        described = load_protocol(ROOT / "ablations", path.stem)
        assert f"| `{described.name}` | {described.description} |" in page
    for name in re.findall(r"`([^`]+)`", README.partition("Protocols: ")[2].partition("\n\n")[0]):
        assert (ROOT / "ablations" / "protocols" / f"{name}.toml").is_file(), name


def test_the_quick_start_prints_what_the_command_prints(capsys):
    """Numbers aside, which depend on the processor."""

    def without_numbers(line: str) -> str:
        told = re.sub(r"[-+]?\d+\.\d+", "#", line)
        return " ".join(told.replace("# (#–#)", "# ± #").split())  # where an interval would leave 0 to 100

    study = Study(ROOT / "results" / "digits-reference")
    tables = load_ablations(ROOT / "ablations", ["ratio"])
    show_table(build_table(tables[0], assess(tables, study)), study.name)
    printed = {without_numbers(line) for line in capsys.readouterr().out.splitlines()}
    quoted = README.partition("results in results/digits\n")[2].partition("```")[0].splitlines()
    assert len(quoted) == 1 + len(tables[0].rows) + len(tables[0].claims)
    assert [line for line in quoted if without_numbers(line) not in printed] == []


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
    both = text.replace("cost", "first/cost+second/cost")
    two_lines = filled.replace("| 1 |", "| 1 |\n| 2 |")
    assert fill(both, tmp_path, "first") == two_lines.replace("cost", "first/cost+second/cost")


def test_written_pages_are_what_the_generator_writes():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec
    assert spec.loader
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    pages = generate.pages()
    assert {page.name for page in pages} >= {"protocols.md", "commands.md", "README.md"}
    for page, text in pages.items():
        assert page.read_text(encoding="utf-8") == text, f"{page.name}: run `make docs`"
