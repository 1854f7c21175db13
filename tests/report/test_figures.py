"""Figures: what is drawn where, that nothing leaves its scale, and labels that keep apart."""

from __future__ import annotations

import math
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from helpers import ABLATION, PLAIN, R4, R16, make_record, table, write_record
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import minimize

from senet_ablate.analysis.study import assess
from senet_ablate.report.figures.forest import COLUMNS, forest_frame, plot_forest
from senet_ablate.report.figures.pareto import front, pareto_frame, plot_pareto
from senet_ablate.report.figures.style import COLUMN, PAGE, WILD, axis_range, draw_interval, save, spread_out
from senet_ablate.report.figures.table import plot_table
from senet_ablate.report.words import WORDS
from senet_ablate.results.records import Latency, Timing
from senet_ablate.results.store import Study, write_latency
from senet_ablate.spec.claims import Claim


def marks(axes: Axes, marker: str) -> set[tuple[float, float]]:
    """Where lines of single markers lie."""
    lines = [line for line in axes.get_lines() if line.get_marker() == marker]
    return {(round(float(x), 6), round(float(y), 6)) for line in lines for x, y in zip(*line.get_data(), strict=True)}


def faint(axes: Axes, size: float) -> list[float]:
    """Positions along the axis of scattered dots of a size, rising."""
    return sorted(round(float(x), 6) for part in axes.collections if [*getattr(part, "get_sizes", list)()] == [size]
                  for x, _ in part.get_offsets())  # fmt: skip


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_a_tables_rows_are_lines_with_every_seed_the_mean_and_the_papers_difference(full: Study) -> None:
    figure = plot_table(table(full))
    errors, cost = figure.axes
    assert [tick.get_text() for tick in errors.get_yticklabels()] == ["r_4, 25%", "r = 16", "no SE"]
    assert marks(errors, "o") == {(13.0, 0), (12.0, 1), (15.0, 2)}
    # What `full` holds: r = 4 has 10, 12, 17; r = 16 11, 11.5, 13.5; no SE 14, 15, 16.
    assert faint(errors, 9) == [10, 11, 11.5, 12, 13.5, 14, 15, 16, 17]
    # The paper's differences to r = 16 are -0.03 and 1.02, from our 12 %.
    assert faint(errors, 16) == [11.97, 13.02]
    # r = 16 adds 43,520 parameters, r = 4 four times as many.
    assert marks(cost, "s") == {(174.08, 0), (43.52, 1), (0.0, 2)}
    assert cost.get_xlabel() == "added\nparams, k"


def test_rows_of_equal_cost_have_no_panel_for_it(full: Study) -> None:
    alike = table(full)
    frame = alike.frame.assign(added_params=1, added_macs=2)
    assert len(plot_table(replace(alike, frame=frame)).axes) == 1


def test_a_row_without_a_run_says_so(study: Study) -> None:
    write_record(study, make_record(R16, 0, 11.0))
    axes = plot_table(table(study)).axes[0]
    assert marks(axes, "o") == {(11.0, 1)}
    assert texts(axes) == ["no finished run yet"] * 2
    assert save(plot_table(table(study)), "svg").count(b"<svg") == 1


def test_an_arm_that_collapsed_leaves_the_others_their_scale_and_is_marked_with_its_value(full: Study) -> None:
    filled = table(full)
    frame = filled.frame.copy()
    frame["top1_err_half"] = [1.0, 1.0, 44.0]
    frame["top1_err_mean"] = [10.0, 12.0, 90.0]
    frame["paper_diff_to_reference"] = None
    axes = plot_table(replace(filled, frame=frame, seeds=dict.fromkeys(filled.seeds, ()))).axes[0]
    low, high = axes.get_xlim()
    assert 8 < low < 9, "from 10 - 1, and a margin"
    assert 13 < high < 14, "to 12 + 1, and a margin"
    assert texts(axes) == ["90.0"]
    assert marks(axes, ">") == {(round(high, 6), 2)}


@given(
    st.lists(st.tuples(st.floats(0, 100), st.floats(0, 60)), min_size=1, max_size=8),
    st.lists(st.floats(-50, 150), max_size=3),
)
def test_no_scale_of_errors_leaves_0_to_100(intervals: list[tuple[float, float]], others: list[float]) -> None:
    low = [mean - half for mean, half in intervals]
    high = [mean + half for mean, half in intervals]
    least, most = axis_range(low, high, *others, floor=0, top=100)
    assert least >= 0
    assert most <= 100
    free = axis_range(low, high, *others)
    widths = [2 * half for _, half in intervals]
    for one, two, width in zip(low, high, widths, strict=True):
        if width <= WILD * np.median(widths):
            assert free[0] <= one
            assert two <= free[1]


def test_the_pareto_figure_moves_no_point_and_joins_those_that_nothing_beats(full: Study) -> None:
    kinds = ("one_image", "batch", "training_step")
    facts = {"device": "cpu", "cpu": "A processor", "threads": 1, "precision": "fp32", "torch": "2", "batch": 4}
    medians = {R4.slug: 3.0, R16.slug: 2.0, PLAIN.slug: 1.0}
    networks = {slug: dict.fromkeys(kinds, Timing.of([0.5, ms, 9.0])) for slug, ms in medians.items()}
    write_latency(full, Latency(**facts, rounds=3, networks=networks))
    frame = pareto_frame([table(full)])
    for width in (PAGE, COLUMN):
        times, params, macs = plot_pareto(frame, "top1_err", width).axes
        assert {(3.0, 13.0), (2.0, 12.0), (1.0, 15.0)} == marks(times, "o")
        exact = frame.set_index("label")["params"] / 1e3
        assert {x for x, _ in marks(params, "o")} == {round(x, 6) for x in exact}
        assert params.get_xlim()[0] >= 0
        assert {*texts(macs)} == {"se-r4", "se-r16", "no SE"}
        steps = next(line for line in times.get_lines() if line.get_drawstyle() == "steps-post")
        assert [*steps.get_xdata()] == [1.0, 2.0], "r = 4 is slower and worse than r = 16"
    assert len(plot_pareto(frame.assign(one_image_ms=None), "top1_err").axes) == 2


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=8))
def test_the_front_is_what_no_other_point_beats(points: list[tuple[int, int]]) -> None:
    kept = {points[at] for at in front([x for x, _ in points], [y for _, y in points])}
    beaten = {(x, y) for x, y in points for u, v in points if u <= x and v <= y and (u, v) != (x, y)}
    assert kept == set(points) - beaten


CLAIM = Claim.model_validate(
    {
        "id": "gain",
        "statement": "SE helps",
        "source": "a test",
        "atoms": (
            {"kind": "superior", "better": "r16", "worse": "plain"},
            {"kind": "equivalent", "arms": ("r4", "r16")},
        ),
    }
)


def test_the_forest_has_a_row_for_each_comparison_with_its_seed_pairs_interval_and_verdict(full: Study) -> None:
    ablation = ABLATION.model_copy(update={"claims": (CLAIM,)})
    assessment = assess([ablation], full)
    frame = forest_frame(assessment, [ablation])
    assert tuple(frame.columns) == COLUMNS
    assert frame["comparison"].tolist() == ["no SE − r = 16", "r_4, 25% − r = 16"]
    assert frame["estimate"].tolist() == pytest.approx([3.0, 1.0])
    assert [[*map(float, seeds.split())] for seeds in frame["seeds"]] == [[3, 3.5, 2.5], [-1, 0.5, 3.5]]
    assert frame["paper"].tolist() == pytest.approx([1.02, -0.03])
    (found,) = assessment.all_findings
    assert frame["verdict"].tolist() == [atom.verdict for atom in found.atoms]
    for width in (PAGE, COLUMN):
        axes = plot_forest(frame, "difference", width).axes[0]
        assert "Table 10: Reduction ratio" in texts(axes)
        assert {(3.0, 1.0), (1.0, 2.0)} == marks(axes, "o")
        (labels,) = (child.get_yticklabels() for child in axes.child_axes)
        words = [WORDS[verdict] for verdict in frame["verdict"]]
        assert [label.get_text().rpartition("  ")[2] for label in labels] == words


def test_a_seed_off_the_scale_is_an_arrow_at_its_edge() -> None:
    axes = Figure().subplots()
    axes.set_xlim(-1, 2)
    line = {"low": -0.5, "high": 5.0, "seeds": "0.5 2 4 -3 -1.5", "paper": math.nan}
    draw_interval(axes, 0.0, line, 0.25)
    inside, left, right = (points.get_offsets().tolist() for points in axes.collections)
    assert (inside, left, right) == ([[0.5, 0.25], [2, 0.25]], [[-1, 0.25]], [[2, 0.25]])
    (interval,) = axes.lines
    assert list(interval.get_xdata()) == [-0.5, 2]
    axes.clear()
    axes.set_xlim(-1, 2)
    draw_interval(axes, 0.0, line | {"seeds": ""}, 0.25)
    assert [len(points.get_offsets()) for points in axes.collections] == [0]


def test_a_users_matplotlibrc_changes_no_byte(full: Study) -> None:
    filled = table(full)
    usual = save(plot_table(filled), "svg")
    with mpl.rc_context({"font.size": 20, "axes.grid": True, "lines.linewidth": 9, "savefig.facecolor": "red"}):
        assert save(plot_table(filled), "svg") == usual


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
