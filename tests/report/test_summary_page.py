"""The page, CSV and figures of several studies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result
from helpers import FACTS, PLAIN, PROTOCOL, R16, make_record, write_record
from test_page import Reader

from senet_ablate.report.figures.trend import plot_trend
from senet_ablate.results.store import Study

GAINS = {2: -1.0, 12: 20.0, 48: 25.0}
"""Points of error that SE takes away, by epochs of training."""


@pytest.fixture
def summary(tmp_path: Path, call: Callable[..., Result]) -> tuple[Path, str]:
    """The folder of a summary over three studies, and what was printed."""
    for epochs, gain in GAINS.items():
        recipe = PROTOCOL.recipe.model_copy(update={"epochs": epochs})
        protocol = PROTOCOL.model_copy(update={"recipe": recipe})
        study = Study(tmp_path / "results" / f"epochs-{epochs}")
        study.begin(protocol, FACTS)
        for variant, mean in ((R16, 20.0), (PLAIN, 20.0 + gain)):
            for seed, apart in enumerate((-0.5, 0.0, 0.5)):
                write_record(study, make_record(variant, seed, mean + apart, protocol=protocol))
    result = call("summary", *(f"epochs-{epochs}" for epochs in GAINS))
    assert result.exit_code == 0, result.output
    return tmp_path / "reports" / "summary", result.output


def test_the_csv_has_a_line_for_each_study_with_what_differs(summary: tuple[Path, str]) -> None:
    frame = pd.read_csv(summary[0] / "tables" / "summary.csv")
    assert frame["study"].tolist() == [f"epochs-{epochs}" for epochs in GAINS]
    assert frame["varied.recipe.epochs"].tolist() == [*GAINS]
    assert frame["estimate"].tolist() == pytest.approx([*GAINS.values()])
    assert (frame["low"] < frame["estimate"]).all()
    assert frame["n_per_variant"].tolist() == ["3 3"] * 3
    assert frame["paper"].tolist() == pytest.approx([1.02] * 3)


def test_the_page_says_in_how_many_studies_it_holds_and_carries_its_files(summary: tuple[Path, str]) -> None:
    home, printed = summary
    verdicts = pd.read_csv(home / "tables" / "summary.csv")["verdict"].tolist()
    assert verdicts == ["not resolved", "reproduced", "reproduced"]
    said = "It is shown to hold in at least 2 of 3 studies"
    for text in (printed, (home / "tables" / "summary.md").read_text(), (home / "index.html").read_text()):
        assert said in " ".join(text.split())
    reader = Reader((home / "index.html").read_text())
    assert reader.open == []
    assert [found["class"] for tag, found in reader.elements if tag == "svg"] == ["page", "column"] * 2
    links = [found["href"] or "" for tag, found in reader.elements if tag == "a"]
    assert len(links) == 4
    assert all(link.startswith("data:") for link in links)


def test_every_line_fits_into_80_columns(summary: tuple[Path, str]) -> None:
    table = [line for line in summary[1].splitlines() if "epochs-" in line]
    assert len(table) == len(GAINS), "a line for each study, none folded"
    assert max(map(len, table)) <= 80


def test_the_comparison_is_drawn_at_the_value_of_the_field_that_differs(summary: tuple[Path, str]) -> None:
    frame = pd.read_csv(summary[0] / "figures" / "trend.csv", keep_default_na=False)
    frame["low"] = pd.to_numeric(frame["low"])
    axes = plot_trend(frame, "epochs", "difference").axes[0]
    points = {
        (line.get_xdata()[0], round(line.get_ydata()[0], 6)) for line in axes.get_lines() if line.get_marker() == "o"
    }
    assert points == set(GAINS.items())
    assert axes.get_xscale() == "log"
    assert list(axes.get_xticks()) == [*GAINS]


def test_a_summary_does_not_overwrite_a_studys_report(summary: tuple[Path, str], call: Callable[..., Result]) -> None:
    assert call("report", "--study", "epochs-2").exit_code == 0
    refused = call("summary", "epochs-2", "epochs-12", "--name", "epochs-2")
    assert refused.exit_code == 2
    assert "is the report of a study" in refused.output
    assert "named twice" in call("summary", "epochs-2", "epochs-2").output
    assert "no study 'epoch-2'" in call("summary", "epoch-2").output
