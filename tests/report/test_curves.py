"""Learning curves: which runs, which values, which lines."""

from __future__ import annotations

import pandas as pd
from helpers import ABLATION, CURVE, R16

from senet_ablate.analysis.study import assess
from senet_ablate.report.figures import curves_frame, plot_curves
from senet_ablate.results.store import Study


def test_the_frame_has_each_epoch_of_each_run(full: Study) -> None:
    frame = curves_frame(ABLATION, assess([ABLATION], full).outcomes)
    assert len(frame) == 3 * 3 * len(CURVE)
    row = next(row.id for row in ABLATION.rows if row.variant == R16)
    some = frame[(frame["row"] == row) & (frame["seed"] == 1)]
    assert some["epoch"].tolist() == [1, 2]
    assert some["train_loss"].tolist() == [point.train_loss for point in CURVE]


def test_a_line_is_the_median_of_the_seeds_and_the_band_their_range() -> None:
    losses = {0: [4.0, 1.0], 1: [2.0, 3.0], 2: [3.0, 8.0]}
    frame = pd.DataFrame(
        [
            {"row": "a", "label": "A", "seed": seed, "epoch": epoch, "train_loss": loss, "val_top1_err": 10 * loss}
            for seed, values in losses.items()
            for epoch, loss in enumerate(values, 1)
        ]
    )
    figure = plot_curves(frame, "A table")
    for axes, scale in zip(figure.axes, (1, 10), strict=True):
        (line,) = axes.get_lines()
        assert line.get_xdata().tolist() == [1, 2]
        assert line.get_ydata().tolist() == [3 * scale, 3 * scale]
        (band,) = axes.collections
        heights = band.get_paths()[0].vertices[:, 1]
        assert (heights.min(), heights.max()) == (1 * scale, 8 * scale)
        assert [text.get_text() for text in axes.texts] == ["A"]
