"""Tables from records alone, finished or half-way, against arithmetic by hand."""

from __future__ import annotations

import io
import math
import re
import shutil
import statistics
from typing import Any

import pandas as pd
import pytest
import torch
from helpers import ABLATION, NETWORK, PLAIN, PROTOCOL, R4, R16, line, make_record, markdown_cells, table, write_record
from scipy import stats
from torch.utils.flop_counter import FlopCounterMode

from senet_ablate.analysis.study import assess
from senet_ablate.errors import UserError
from senet_ablate.files import write_atomic
from senet_ablate.models.build import build_network
from senet_ablate.report.escape import csv_text
from senet_ablate.report.figures.pareto import pareto_frame
from senet_ablate.report.figures.table import table_frame
from senet_ablate.report.leaderboard import leaderboard
from senet_ablate.report.tables import build_table, check_columns, printed, to_latex, to_markdown
from senet_ablate.report.words import WORDS
from senet_ablate.results.records import Failure, Progress
from senet_ablate.results.store import Study
from senet_ablate.spec.claims import Claim, Superior
from senet_ablate.spec.network import SEConfig, Variant

# --- the numbers ---


def test_mean_deviation_and_difference_by_hand(full: Study) -> None:
    r4, r16, plain = (line(full, row) for row in ("r4", "r16", "plain"))
    assert [row["n"] for row in (r4, r16, plain)] == [3, 3, 3]
    # 10, 12, 17: mean 13, deviations -3, -1, 4, their squares 26, over n - 1 = 2: 13.
    assert (r4["top1_err_mean"], r4["top1_err_sd"]) == pytest.approx((13, math.sqrt(13)))
    # 11, 11.5, 13.5: mean 12, squares 1, 0.25, 2.25 are 3.5, over 2: 1.75.
    assert (r16["top1_err_mean"], r16["top1_err_sd"]) == pytest.approx((12, math.sqrt(1.75)))
    assert (plain["top1_err_mean"], plain["top1_err_sd"]) == pytest.approx((15, 1))
    assert (r4["diff_to_reference"], plain["diff_to_reference"]) == pytest.approx((1, 3))
    assert r16["diff_to_reference"] is None, "the reference is compared with nothing"


def test_intervals_are_those_of_the_noise_model(full: Study) -> None:
    assessment = assess([ABLATION], full)
    noise = assessment.judges["ratio"].evidence.noise
    assert noise is not None
    for place, row in enumerate(ABLATION.rows):
        se = math.sqrt(noise.variance[place] / 3)
        assert line(full, row.id)["top1_err_half"] == pytest.approx(stats.t.isf(0.025, noise.df[place]) * se)
    # Each difference to the reference at least as wide as its own 95 % interval, for all are meant to hold together.
    for row in ("r4", "plain"):
        alone = noise.contrast({("r4", "r16", "plain").index(row): 1.0, 1: -1.0})
        assert line(full, row)["diff_half"] > stats.t.isf(0.025, alone.df) * alone.se


def test_no_interval_of_an_error_leaves_0_to_100(study: Study) -> None:
    for variant, errors in ((R4, (0.0, 1.0)), (R16, (97.0, 99.5)), (PLAIN, (40.0, 49.0))):
        for seed, error in enumerate(errors):
            write_record(study, make_record(variant, seed, error))
    filled = table(study)
    means, halves = filled.frame["top1_err_mean"], filled.frame["top1_err_half"]
    assert means[0] < halves[0]
    assert means[1] + halves[1] > 100
    told = printed(filled)["top-1 err. %"].tolist()
    assert told[0] == f"0.50 (0.00–{0.5 + halves[0]:.2f})"
    assert told[1] == f"98.25 ({98.25 - halves[1]:.2f}–100.00)"
    assert told[2] == f"44.50 ± {halves[2]:.2f}"
    for drawn in (table_frame(filled), pareto_frame([filled])):
        assert (drawn["low"].min(), drawn["high"].max()) == (0, 100)


def test_rows_far_above_the_lowest_cannot_be_the_best(study: Study) -> None:
    for variant, errors in ((R4, (10.0, 11.0, 12.0)), (R16, (10.5, 11.0, 13.0)), (PLAIN, (60.0, 61.0, 62.0))):
        for seed, error in enumerate(errors):
            write_record(study, make_record(variant, seed, error))
    assert table(study).frame["may_be_best"].tolist() == [True, True, False]
    assert printed(table(study))["best?"].tolist() == ["✓", "✓", ""]


def test_the_papers_figures_and_differences(full: Study) -> None:
    frame = table(full).frame.set_index("row")
    assert frame["paper_diff_to_reference"].tolist() == pytest.approx([-0.03, 0, 1.02])
    assert frame["paper_top1_err"].tolist() == [22.25, 22.28, 23.30]
    assert frame["paper_top5_err"].tolist() == [6.09, 6.03, 6.55]
    assert frame["paper_params_m"].tolist()[:2] == [35.7, 28.1]
    assert math.isnan(frame["paper_params_m"]["plain"])
    assert frame["paper_gflops"]["r16"] == 3.87


def test_costs_are_those_of_the_network_built(study: Study) -> None:
    for row in ABLATION.rows:
        cells = line(study, row.id)
        model = build_network(NETWORK, row.variant, in_channels=1, classes=10, resolution=8).eval()
        params = sum(parameter.numel() for parameter in model.parameters())
        running = sum(buffer.numel() for name, buffer in model.named_buffers() if "running" in name)
        assert (cells["params"], cells["params_with_bn_stats"]) == (params, params + running)
        counter = FlopCounterMode(display=False)
        with counter, torch.inference_mode():
            model(torch.zeros(1, 1, 8, 8))
        # torch counts two operations per multiply-add, and not what the squeeze reads.
        squeezed = 64 * 64 + 128 * 16 + 256 * 4 + 512 if row.variant.se else 0
        assert cells["macs"] == counter.get_total_flops() // 2 + squeezed


def test_added_costs_by_hand(study: Study) -> None:
    # Blocks of 64, 128, 256, 512 channels on maps of 8, 4, 2 and 1 pixels; 2 C (C / 16) weights each.
    weights = [2 * c * c // 16 for c in (64, 128, 256, 512)]
    r16, plain = line(study, "r16"), line(study, "plain")
    assert r16["added_params"] == sum(weights) == 43_520
    assert r16["added_macs"] == sum(weights) + 64 * 64 + 128 * 16 + 256 * 4 + 512 * 1
    assert (plain["added_params"], plain["added_macs"]) == (0, 0)
    assert r16["params"] - plain["params"] == 43_520


def test_one_run_has_a_mean_and_no_deviation(study: Study) -> None:
    write_record(study, make_record(R16, 0, 11.0))
    cells = line(study, "r16")
    assert (cells["n"], cells["top1_err_mean"], cells["top1_err_sd"], cells["top1_err_half"]) == (1, 11.0, None, None)
    assert printed(table(study)).set_index("variant")["top-1 err. %"]["r = 16"] == "11.00"


def test_seeds_beyond_the_protocols_count_too(full: Study) -> None:
    write_record(full, make_record(R16, 7, 16.0))
    cells = line(full, "r16")
    assert (cells["n"], cells["top1_err_mean"]) == (4, 13.0)
    assert cells["top1_err_sd"] == pytest.approx(statistics.stdev([11, 11.5, 13.5, 16]))
    assert cells["note"] == ""


def test_top5_columns_appear_only_when_recorded(full: Study) -> None:
    assert "top-5 err. %" not in printed(table(full))
    for seed, error in enumerate((2.0, 3.0, 7.0)):
        write_record(full, make_record(R4, seed, 10.0, top5_err=error))
    assert line(full, "r4")["top5_err_mean"] == pytest.approx(4)
    assert printed(table(full))["top-5 err. %"].tolist() == ["4.00", "–", "–"]


# --- half-way ---


def test_a_study_without_runs_has_no_numbers(study: Study) -> None:
    filled = table(study)
    assert filled.frame["n"].tolist() == [0, 0, 0]
    assert filled.frame["note"].tolist() == ["not run"] * 3
    assert filled.frame[["top1_err_mean", "top1_err_sd", "diff_to_reference"]].isna().all().all()
    assert printed(filled)["top-1 err. %"].tolist() == ["–"] * 3
    assert printed(filled)["diff."].tolist() == ["–"] * 3


def test_without_its_reference_an_arm_has_a_mean_and_no_difference(study: Study) -> None:
    write_record(study, make_record(R4, 0, 10.0))
    cells = line(study, "r4")
    assert (cells["top1_err_mean"], cells["diff_to_reference"]) == (10.0, None)
    assert (cells["note"], line(study, "r16")["note"]) == ("", "not run")


def test_seeds_that_other_arms_have_are_told_as_missing(full: Study) -> None:
    for seed in (0, 2):
        shutil.rmtree(full.run(make_record(R16, seed).run_id).path)
    assert [line(full, row)["note"] for row in ("r4", "r16", "plain")] == ["", "not run: seed 0, seed 2", ""]
    assert line(full, "r4")["diff_to_reference"] == pytest.approx(13 - 11.5)


def test_diverged_failed_and_unfinished_runs_are_told_and_not_averaged(study: Study) -> None:
    write_record(study, make_record(R4, 0, 10.0))
    write_record(study, make_record(R4, 1, None))
    study.run(make_record(R4, 2).run_id).fail(Failure(cause="out of memory", traceback="…"))
    progress = study.run(make_record(R16, 1).run_id).progress_file
    write_atomic(progress, Progress(epoch=1, epochs=2).model_dump_json())
    write_record(study, make_record(PLAIN, 0, None))
    r4, r16, plain = (line(study, row) for row in ("r4", "r16", "plain"))
    assert (r4["n"], r4["n_diverged"], r4["top1_err_mean"]) == (1, 1, 10.0)
    assert r4["note"] == "diverged: seed 1; failed: seed 2: out of memory"
    assert r16["note"] == "unfinished: seed 1 at epoch 1 of 2; not run: seed 0"
    assert (plain["n"], plain["n_diverged"], plain["top1_err_mean"]) == (0, 1, None)
    assert plain["note"] == "diverged: seed 0; not run: seed 1"
    assert printed(table(study))["note"].tolist() == [r4["note"], r16["note"], plain["note"]]


@pytest.mark.parametrize(
    "other",
    [
        {"protocol": PROTOCOL.model_copy(update={"recipe": PROTOCOL.recipe.model_copy(update={"epochs": 9})})},
        {"protocol": PROTOCOL.model_copy(update={"precision": "bf16"})},
        {"fingerprint": "beef"},
    ],
    ids=["recipe", "precision", "images"],
)
def test_records_of_other_conditions_or_images_are_never_taken(other: dict[str, Any], full: Study) -> None:
    before = line(full, "r16")
    write_record(full, make_record(R16, 9, 99.0, **other))
    after = line(full, "r16")
    # A run of the same spec on other images cannot be passed over in silence; one of other conditions is another run.
    assert after.pop("note") == ("other images: seed 9" if "fingerprint" in other else before.pop("note"))
    before.pop("note", None)
    assert after == before


def test_a_variant_whose_name_begins_alike_is_not_taken(full: Study) -> None:
    before = line(full, "r16")
    for other in (Variant(se=SEConfig(gate="tanh")), Variant(se=SEConfig(squeeze="max"))):
        write_record(full, make_record(other, 0, 99.0))
    assert line(full, "r16") == before


def test_a_damaged_record_is_an_error_that_names_it(full: Study) -> None:
    path = full.run(make_record(R16, 0).run_id).record_file
    path.write_text("{}")
    with pytest.raises(UserError, match="damaged") as caught:
        table(full)
    assert str(path) in str(caught.value)


# --- remarks ---


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"precision": "bf16"}, "differ in precision: bf16, fp32"),
        ({"cpu": "Another processor"}, "differ in hardware: A processor, 1 thread.*, Another processor, 1 thread"),
        ({"device": "A card"}, "differ in hardware: A card"),
        ({"devices": 4}, "differ in devices per run: 1, 4"),
        ({"libraries": {"torch": "2.7"}}, r"differ in torch: 2\.6, 2\.7"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_runs_made_differently_are_remarked(made: dict[str, Any], words: str, full: Study) -> None:
    assert not any("Caution" in remark for remark in table(full).remarks)
    write_record(full, make_record(R16, 3, 12.0, **made))
    assert any(remark.startswith("Caution") and re.search(words, remark) for remark in table(full).remarks)


def test_remarks_say_what_was_held_fixed(full: Study) -> None:
    remarks = " ".join(table(full).remarks)
    for words in ("resnet14, width 16", "digits at 8x8", "900 training, 100 validation and 200 test", "10 classes"):
        assert words in remarks
    assert "2 epochs, batch 4" in remarks
    assert "Trained on A processor, 1 thread per run, fp32." in remarks


# --- Markdown, CSV, LaTeX ---


def test_markdown_has_n_our_columns_and_the_papers(full: Study) -> None:
    text = to_markdown(table(full))
    header, rule, *rows = markdown_cells(text)
    assert all(set(cell) <= set(":-") for cell in rule)
    cells = [dict(zip(header, row, strict=True)) for row in rows]
    assert [row["variant"] for row in cells] == ["r_4, 25%", "r = 16", "no SE"]
    assert [row["n"] for row in cells] == ["3", "3", "3"]
    halves = table(full).frame["top1_err_half"]
    shown = [f"{mean}.00 ± {half:.2f}" for mean, half in zip((13, 12, 15), halves, strict=True)]
    assert [row["top-1 err. %"] for row in cells] == shown
    halves = table(full).frame["diff_half"]
    assert [row["diff."] for row in cells] == [f"+1.00 ± {halves[0]:.2f}", "–", f"+3.00 ± {halves[2]:.2f}"]
    assert [row["paper top-1"] for row in cells] == ["22.25", "22.28", "23.30"]
    assert [row["paper diff."] for row in cells] == ["-0.03", "–", "+1.02"]
    assert [row["paper top-5"] for row in cells] == ["6.09", "6.03", "6.55"]
    assert [row["paper params M"] for row in cells] == ["35.7", "28.1", "–"]
    assert [row["paper GFLOPs"] for row in cells] == ["–", "3.87", "–"]
    assert "note" not in header
    assert text.startswith("# Table 10: Reduction ratio (tiny)\n\nWhich ratio?\n")
    assert "- a paper.\n" in text
    assert all(f"- {remark}\n" in text for remark in table(full).remarks)


def test_csv_read_back_is_the_frame_to_ten_digits(full: Study) -> None:
    write_record(full, make_record(PLAIN, 3, None))
    frame = table(full).frame
    numbers = [name for name in frame.columns if name not in ("row", "label", "note")]
    text = io.StringIO(csv_text(table(full).frame))
    back = pd.read_csv(text, keep_default_na=False, na_values={name: [""] for name in numbers})
    pd.testing.assert_frame_equal(back[numbers].astype(float), frame[numbers].astype(float), rtol=1e-9)
    for name in ("row", "label", "note"):
        assert back[name].tolist() == frame[name].tolist()
    assert list(back.columns) == list(frame.columns)


def test_latex_has_booktabs_rules_and_escapes(full: Study) -> None:
    whole = to_latex(table(full))
    above = [f"% {remark}" for remark in table(full).remarks]
    assert whole.splitlines()[: len(above)] == above, "what the caption leaves out"
    text = whole.removeprefix("".join(f"{line}\n" for line in above))
    assert text.startswith(r"\begin{table}")
    for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\begin{table}", r"\end{tabular}", r"\label{tab:ratio}"):
        assert text.count(rule) == 1
    half = table(full).frame.set_index("row")["top1_err_half"]
    assert rf"r\_4, 25\% & 3 & 13.00 $\pm$ {half['r4']:.2f} & $\checkmark$ & +1.00 $\pm$ " in text
    assert rf"no SE & 3 & 15.00 $\pm$ {half['plain']:.2f} & $\checkmark$ & +3.00 $\pm$ " in text
    assert r"top-1 err. \%" in text
    assert not re.search(r"(?<!\\)[%_#]", text)
    assert "±" not in text
    assert "–" not in text
    header, *rows = [text_line for text_line in text.splitlines() if text_line.endswith(r"\\")]
    assert len(rows) == 3
    assert {row.count("&") for row in (header, *rows)} == {header.count("&")}
    columns = re.search(r"\\begin\{tabular\}\{([lr]+)\}", text)
    assert columns is not None
    assert len(columns[1]) == header.count("&") + 1


def test_latex_has_the_columns_that_are_asked_for_and_a_short_caption(full: Study) -> None:
    text = to_latex(table(full), check_columns(["err", "params", "top5"]))
    (header,) = [row for row in text.splitlines() if row.startswith("variant &")]
    assert header == r"variant & top-1 err. \% & params M \\", "no run has a top-5 error"
    (caption,) = [row for row in text.splitlines() if row.startswith(r"\caption")]
    assert caption.startswith(r"\caption[Reduction ratio]{Reduction ratio, after Table 10 of the paper: top-1 error ")
    assert len(caption) < 200
    with pytest.raises(UserError, match="no column 'parms'; did you mean 'params'"):
        check_columns(["err", "parms"])


@pytest.mark.parametrize("cause", ["a|b", "50% of C:\\temp_1 & #2", "{x}^2 ~ $3", "weights <W> [0, 1)"])
def test_a_failures_words_break_neither_markdown_nor_latex(cause: str, full: Study) -> None:
    folder = full.run(make_record(R4, 1).run_id)
    shutil.rmtree(folder.path)
    folder.fail(Failure(cause=cause, traceback=""))
    filled = table(full)
    header, rule, *rows = markdown_cells(to_markdown(filled))
    assert {len(row) for row in (header, rule, *rows)} == {len(header)}
    text = to_latex(filled)
    rows = [text_line for text_line in text.splitlines() if text_line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(header) - 1}
    note = next(row for row in rows if "seed 1" in row).rpartition("failed: ")[2].removesuffix(r"\\").strip()
    plain = re.sub(r"\\[%&#_{}$]|\\text[a-z]+(\{\})?|\\[~^]\{\}", "", note)
    assert not re.search(r"[\\%&#_{}$^~]", plain), "a special character is not escaped"


def test_the_leaderboard_has_a_line_per_block_with_runs_and_what_it_is_said_to_beat(full: Study) -> None:
    claims = tuple(
        Claim(id=f"r4-{name}", statement="r_4 beats it", source="ours", atoms=(atom,))
        for name, atom in (
            ("se", Superior(kind="superior", better="r4", worse="r16")),
            ("gain", Superior(kind="superior", better="r4", worse="plain")),
        )
    )
    ablation = ABLATION.model_copy(update={"claims": claims})
    assessment = assess([ablation], full)
    frame = leaderboard(build_table(ablation, assessment), "first")
    filled = build_table(ablation, assessment).frame
    assert sorted(frame["top1_err"]) == frame["top1_err"].tolist(), "the lowest error first"
    assert set(frame["block"]) == set(filled.loc[filled["n"] > 0, "label"])
    verdicts = {
        claim: WORDS[found.verdict] for claim, found in zip(("se", "no_se"), assessment.all_findings, strict=True)
    }
    line = frame.set_index("block").loc["r_4, 25%"]
    assert {kind: line[f"beats_{kind}"] for kind in verdicts} == verdicts
    assert (frame.set_index("block")["beats_constant"] == "").all()
