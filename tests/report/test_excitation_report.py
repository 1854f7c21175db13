"""Pages and figures of an excitation: what is drawn is what the CSV says."""

import numpy as np
import pandas as pd
import pytest
from helpers import markdown_cells

from senet_ablate.report.excitation import last_stage, printed_pruning, write_excitation, write_pruning
from senet_ablate.report.figures.gates import heat_frame, plot_heat, plot_lines
from senet_ablate.results.gates import BlockExcitation, block_table, line_table

CLASSES = {"cat": 0, "dog": 2}
EVERY = {"cat": 0, "cow": 1, "dog": 2}
WORDS = ("se-r16, seed 0", "Some run.", "Some images.")


def made(name: str, gate: str = "sigmoid", channels: int = 60) -> BlockExcitation:
    """Gates of twelve images in three classes of four, drawn."""
    gates = np.random.default_rng([*name.encode()]).random((3, 4, channels))
    return BlockExcitation(name, gate, np.full(3, 4), gates.sum(1), (gates**2).sum(1), np.abs(gates).sum((0, 1)))


BLOCKS = [made(name) for name in ("SE_2_1", "SE_3_1", "SE_4_1", "SE_5_1", "SE_5_2")]


def test_a_panel_for_each_block_holds_the_lines_of_its_table():
    frame = line_table(BLOCKS, CLASSES)
    figure = plot_lines(frame, limits=(0, 1), band=False)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [block.name for block in BLOCKS]
    for axes, block in zip(figure.axes, BLOCKS, strict=True):
        lines = {line.get_label(): line for line in axes.get_lines()}
        assert list(lines) == ["cat", "dog", "all"]
        for name, line in lines.items():
            cells = frame[(frame["block"] == block.name) & (frame["class"] == name)]
            assert line.get_xdata().tolist() == cells["channel"].tolist() == list(range(1, 61, 2))
            assert line.get_ydata().tolist() == cells["mean"].tolist()
        assert len({line.get_color() for line in lines.values()}) == 3
        assert len({line.get_linestyle() for line in (lines["cat"], lines["dog"])}) == 2
        assert lines["all"].get_color() == "black"
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown == ["cat", "dog", "all"]


def test_bands_are_one_standard_deviation_to_each_side():
    frame = line_table(BLOCKS[:1], {"cat": 0}, with_all=False)
    (axes,) = plot_lines(frame, limits=None, band=True).axes
    (band,) = axes.collections
    corners = band.get_paths()[0].vertices
    for channel, mean, sd in frame[["channel", "mean", "sd"]].itertuples(index=False):
        heights = corners[corners[:, 0] == channel][:, 1]
        assert heights.min() == pytest.approx(mean - sd)
        assert heights.max() == pytest.approx(mean + sd)


def test_the_heat_map_has_all_channels_by_falling_mean_and_a_line_for_each_class():
    frame = heat_frame(BLOCKS, EVERY)
    panels = plot_heat(frame, limits=(0, 1)).axes[: len(BLOCKS)]
    for axes, block in zip(panels, BLOCKS, strict=True):
        assert axes.get_title(loc="left") == block.name
        cells = np.asarray(axes.get_images()[0].get_array())
        means = block.sums / 4  # four images of each class
        order = np.argsort(-means.mean(0), kind="stable")  # as many of each, so the mean of means is the mean
        assert cells == pytest.approx(means[:, order])
        channels = frame[(frame["block"] == block.name) & (frame["class"] == "dog")].sort_values("rank")["channel"]
        assert channels.tolist() == (order + 1).tolist()
    assert [tick.get_text() for tick in panels[0].get_yticklabels()] == list(EVERY)


def test_files_are_written_with_their_numbers_and_are_the_same_each_time(tmp_path):
    files = write_excitation(tmp_path / "one", WORDS, BLOCKS, CLASSES, ["cat", "dog"], EVERY)
    names = {"excitation.md", "blocks.csv"}
    for stem in ("gates", "class_means", "instance_spread"):
        names |= {f"{stem}.csv", *(f"{stem}{form}.{kind}" for form in ("", "_column") for kind in ("svg", "png"))}
    assert {path.name for path in files} == {path.name for path in (tmp_path / "one").iterdir()} == names
    again = write_excitation(tmp_path / "two", WORDS, BLOCKS, CLASSES, ["cat", "dog"], EVERY)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in files]
    page = (tmp_path / "one" / "excitation.md").read_text()
    assert "Some run. Some images." in page
    assert [cells[0] for cells in markdown_cells(page)][-5:] == [block.name for block in BLOCKS]
    assert f"{BLOCKS[0].numbers()['specificity']:.3f}" in page
    assert f"would be {2 / 11:.3f} on average" in page  # three classes, twelve images
    drawn = pd.read_csv(tmp_path / "one" / "class_means.csv")
    pd.testing.assert_frame_equal(drawn, line_table(BLOCKS, CLASSES))
    spread = pd.read_csv(tmp_path / "one" / "instance_spread.csv")
    assert set(spread["class"]) == {"cat", "dog"}


def test_the_last_stage_is_told_in_its_own_numbers():
    table = block_table(BLOCKS)
    table.loc[table["block"] == "SE_5_2", ["mean", "between_sd", "saturated"]] = [0.97, 0.001, 0.95]
    assert "mean gate is 0.970 and its SD between classes 0.001" in last_stage(table)
    assert "saturated: 95.0 %" in last_stage(table)
    assert "has no SE_5_2" in last_stage(table[table["block"] != "SE_5_2"])


def test_a_gate_without_limit_has_no_saturated_share(tmp_path):
    write_excitation(tmp_path, WORDS, [made("SE_5_2", "relu")], CLASSES, ["cat"], EVERY)
    page = (tmp_path / "excitation.md").read_text()
    assert "a relu gate has none" in page
    assert "saturated: – %" not in page


def test_a_pruned_networks_page_says_what_was_off(tmp_path):
    lines = [
        ("nothing", "", 0, 0, 50, 10.0, 0.0, 0, 0),
        ("stage 5", "identity", 3, 1234567, 50, 14.0, 4.0, 3, 1),
    ]
    columns = ["off", "way", "blocks", "params", "images", "top1_err", "change", "broken", "mended"]
    table = pd.DataFrame(lines, columns=columns)
    text = printed_pruning(table).to_numpy().tolist()
    assert text == [
        ["nothing", "–", "0", "0", "10.00", "", "0", "0"],
        ["stage 5", "identity", "3", "1,234,567", "14.00", "+4.00", "3", "1"],
    ]
    write_pruning(tmp_path, WORDS, table)
    assert "1,234,567" in (tmp_path / "pruning.md").read_text()
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "pruning.csv", keep_default_na=False), table, check_dtype=False
    )
