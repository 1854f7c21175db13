"""Learning curves: which runs, which values, which lines."""

from __future__ import annotations

import pandas as pd
from helpers import ABLATION, CURVE, R16

from senet_ablate.analysis.study import assess
from senet_ablate.report.figures.curves import curves_frame, plot_curves
from senet_ablate.report.figures.style import COLUMN
from senet_ablate.results.store import Study


def test_the_frame_has_each_epoch_of_each_run(full: Study) -> None:
    frame = curves_frame(ABLATION, assess([ABLATION], full).outcomes)
    assert len(frame) == 3 * 3 * len(CURVE)
    row = next(row.id for row in ABLATION.rows if row.variant == R16)
    some = frame[(frame["row"] == row) & (frame["seed"] == 1)]
    assert some["epoch"].tolist() == [1, 2]
    assert some["train_loss"].tolist() == [point.train_loss for point in CURVE]


def test_seeds_are_thin_lines_their_median_a_thick_one_and_the_last_third_is_enlarged() -> None:
    losses = {0: [4.0, 1.0, 1, 1, 1, 1], 1: [2.0, 3.0, 2, 2, 2, 2], 2: [3.0, 8.0, 3, 3, 3, 6]}
    frame = pd.DataFrame(
        [
            {"row": "a", "label": "A", "seed": seed, "epoch": epoch, "train_loss": loss, "val_top1_err": 10 * loss}
            for seed, values in losses.items()
            for epoch, loss in enumerate(values, 1)
        ]
    )
    panels = plot_curves(frame).axes
    for axes, scale in zip(panels, (1, 1, 10, 10), strict=True):
        *seeds, middle = axes.get_lines()
        assert [[*line.get_ydata()] for line in seeds] == [
            [scale * loss for loss in values] for values in losses.values()
        ]
        assert [*middle.get_ydata()] == [3 * scale, 3 * scale, *[2 * scale] * 4]
        assert max(line.get_linewidth() for line in seeds) < middle.get_linewidth()
    assert [axes.get_xlim() for axes in panels] == [(1, 6), (4, 6), (1, 6), (4, 6)]
    assert [[text.get_text() for text in axes.texts] for axes in panels] == [[], ["A"], [], ["A"]]
    assert panels[3].get_ylim()[1] < 80 < panels[2].get_ylim()[1], "the last third has its own scale"
    assert len(plot_curves(frame, COLUMN).axes) == 2
