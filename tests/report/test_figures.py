"""Figures: what is drawn where, and labels that keep apart."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from helpers import PLAIN, R4, R16, make_record, table, write_record
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from scipy.optimize import minimize

from senet_ablate.report.figures import MARKERS, plot_column, plot_points, plot_table, save, spread_out
from senet_ablate.results.records import Latency, Timing
from senet_ablate.results.store import Study, write_latency


def drawn(figure: Figure, row: int, column: int, columns: int = 2) -> set[tuple[float, float]]:
    """Data points of a panel (not the markers beside the labels)."""
    axes = figure.axes[columns * row + column]
    points = set()
    for part in axes.get_lines():
        if part.get_transform() == axes.transData and part.get_marker() in MARKERS:
            points |= {(round(float(x), 6), round(float(y), 6)) for x, y in zip(*part.get_data(), strict=True)}
    return points


def test_the_figure_shows_error_against_added_cost_and_the_papers_below(full: Study) -> None:
    figure = plot_table(table(full))
    # r = 16 adds 43,520 parameters, r = 4 four times as many; in thousands since both are below a million.
    assert drawn(figure, 0, 0) == {(174.08, 13.0), (43.52, 12.0), (0.0, 15.0)}
    # The paper's network: 16 blocks, 2 C^2 / 16 each, 3 of 256, 4 of 512, 6 of 1024, 3 of 2048 channels.
    added = (3 * 256**2 + 4 * 512**2 + 6 * 1024**2 + 3 * 2048**2) / 8 / 1e6
    assert drawn(figure, 1, 0) == {(round(4 * added, 6), 22.25), (round(added, 6), 22.28), (0.0, 23.30)}
    assert figure.axes[0].get_xlabel() == "added parameters, thousand"
    assert "n = 3 seeds" in figure.axes[0].get_title(loc="left")


def test_arms_without_a_run_are_named_in_the_title_and_not_drawn(study: Study) -> None:
    write_record(study, make_record(R16, 0, 11.0))
    figure = plot_table(table(study))
    assert {y for _, y in drawn(figure, 0, 0)} == {11.0}
    assert "not run: r_4, 25%, no SE" in figure.axes[0].get_title(loc="left")


def test_a_study_without_a_run_can_be_drawn(study: Study) -> None:
    figure = plot_table(table(study))
    assert [text.get_text() for text in figure.axes[0].texts] == ["no finished run yet"]
    assert save(figure, "svg").count(b"<svg") == 1


def test_an_arm_that_collapsed_leaves_the_others_their_axis_and_is_told_in_its_label() -> None:
    arms = pd.DataFrame({"row": ["a", "b", "c"], "error": [10.0, 12.0, 55.0], "half": [1.0, 1.0, 40.0]})
    points = arms.assign(label=arms["row"], source="this study", cost="params", x=[0.0, 1.0, 2.0])
    axes = plot_points(points, "", {"this study": ""}, ["a", "b", "c"]).axes[0]
    low, high = axes.get_ylim()
    assert 8 < low < 9, "from 10 - 1, and a margin"
    assert 13 < high < 14, "to 12 + 1, and a margin"
    assert [text.get_text() for text in axes.texts] == ["a", "b", "c (55 %)"]


def test_measured_times_have_a_panel_and_leave_the_papers_axis_its_ticks(full: Study) -> None:
    kinds = ("one_image", "batch", "training_step")
    facts = {"device": "cpu", "cpu": "A processor", "threads": 1, "precision": "fp32", "torch": "2", "batch": 4}
    medians = {R4.slug: 3.0, R16.slug: 2.0, PLAIN.slug: 1.0}
    networks = {slug: dict.fromkeys(kinds, Timing.of([0.5, ms, 9.0])) for slug, ms in medians.items()}
    write_latency(full, Latency(**facts, rounds=3, networks=networks))
    figure = plot_table(table(full))
    assert drawn(figure, 0, 2, columns=3) == {(3.0, 13.0), (2.0, 12.0), (1.0, 15.0)}
    paper = figure.axes[3:]
    assert [axes.get_visible() for axes in paper] == [True, True, False]
    assert len(paper[0].get_yticks()) > 1


def test_a_figure_of_one_column_shows_added_parameters_alone(full: Study) -> None:
    whole, column = plot_table(table(full)), plot_column(table(full))
    assert column.get_size_inches()[0] == pytest.approx(89 / 25.4, abs=0.01)
    assert [axes.get_xlabel() for axes in column.axes] == ["added parameters, thousand", "added parameters, million"]
    assert drawn(column, 0, 0, columns=1) == drawn(whole, 0, 0)
    assert drawn(column, 1, 0, columns=1) == drawn(whole, 1, 0)


heights = st.lists(st.floats(-1, 2), min_size=1, max_size=9).map(sorted)
distances = st.floats(0.01, 0.3)


@given(wished=heights, distance=distances)
def test_spread_labels_keep_order_distance_and_centre(wished: list[float], distance: float) -> None:
    placed = spread_out(np.array(wished), distance)
    assert (np.diff(placed) >= distance - 1e-9).all()
    assert placed.mean() == pytest.approx(np.mean(wished), abs=1e-9), "least squares moves no centre of gravity"


@given(gaps=st.lists(st.floats(0.11, 1), max_size=8), first=st.floats(-1, 1))
def test_labels_that_are_far_apart_stay_where_they_are(gaps: list[float], first: float) -> None:
    wished = np.cumsum([first, *gaps])
    assert spread_out(wished, 0.1) == pytest.approx(wished)


@given(wished=heights.filter(lambda some: len(some) < 6), distance=distances)
def test_spread_labels_move_as_little_as_possible(wished: list[float], distance: float) -> None:
    placed, target = spread_out(np.array(wished), distance), np.array(wished)
    start = target[0] + np.arange(len(wished)) * (np.ptp(target) + distance)
    best = minimize(
        lambda x: ((x - target) ** 2).sum(),
        start,
        method="SLSQP",
        constraints={"type": "ineq", "fun": lambda x: np.diff(x) - distance} if len(wished) > 1 else (),
    )
    assert ((placed - target) ** 2).sum() <= best.fun + 1e-5
