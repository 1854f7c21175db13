"""The `plan` command beside finished runs: time at their pace, noise as they scatter."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from helpers import PLAIN, R16
from planned import DIGITS, MAX, Call, chances, finish, said, told

from senet_ablate.spec.cost import total_cost

# --- budgets of time ---


def test_a_budget_of_time_without_a_finished_run_is_refused_with_what_to_do(call: Call) -> None:
    message = told(call("plan", "squeeze", "--budget", "2h"))
    assert "no finished run in results/" in message
    assert "run ratio --rows r16 --seeds 1" in message
    assert "--runs" in message


def test_a_budget_of_time_is_spent_at_the_pace_of_finished_runs(call: Call) -> None:
    finish({PLAIN: 2}, "another", wall_s=60.0)
    plain, *others = (
        total_cost(DIGITS.network, variant, in_channels=1, classes=10, resolution=8).macs
        for variant in (PLAIN, R16, MAX)
    )
    result = call("plan", "squeeze", "--budget", "20min", "--jobs", "1")
    assert result.exit_code == 0, result.output
    counts = dict(re.findall(r"^ *(plain|se-r16|se-r16-max) .* (\d+) +0 *$", result.stdout, flags=re.MULTILINE))
    minutes = int(counts["plain"]) + sum(
        int(counts[name]) * macs / plain for name, macs in zip(("se-r16", "se-r16-max"), others, strict=True)
    )
    dearest = max(others) / plain
    assert 20 - dearest < minutes <= 20
    assert "from 2 finished runs of this protocol, on A processor" in said(result)
    time_told = re.search(r"Time: about (\d+) min (\d+) s on one worker", said(result))
    assert time_told is not None
    assert int(time_told[1]) * 60 + int(time_told[2]) == pytest.approx(60 * minutes, abs=1)


def test_more_workers_have_more_time(call: Call) -> None:
    finish({PLAIN: 2}, "another", wall_s=60.0)
    runs = {}
    for jobs in (1, 2):
        found = re.search(
            r"3 variants, (\d+) runs", said(call("plan", "squeeze", "--budget", "10min", "--jobs", str(jobs)))
        )
        assert found is not None
        runs[jobs] = int(found[1])
    assert runs[1] in (9, 10)
    assert runs[2] in (19, 20)


def test_what_80_percent_power_takes_is_told_in_time_too(call: Call) -> None:
    assert re.fullmatch(r"\d+ seeds", chances(call("plan", "squeeze"))["squeeze:11b"]["takes"])
    finish({PLAIN: 2}, "another", wall_s=60.0)
    takes = chances(call("plan", "squeeze", "--seeds", "3"))["squeeze:11b"]["takes"]
    found = re.fullmatch(r"(\d+) seeds, (?:(\d+) h )?(\d+) min(?: (\d+) s)?", takes)
    assert found is not None, takes
    seconds = 3600 * int(found[2] or 0) + 60 * int(found[3]) + int(found[4] or 0)
    share = (
        total_cost(DIGITS.network, MAX, in_channels=1, classes=10, resolution=8).macs
        / total_cost(DIGITS.network, PLAIN, in_channels=1, classes=10, resolution=8).macs
    )
    assert seconds == pytest.approx(int(found[1]) * 60 * (1 + share), abs=60), "of the variants that it needs alone"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2h", 7200),
        ("90min", 5400),
        ("1h30m", 5400),
        ("45s", 45),
        ("1.5h", 5400),
        ("1h 30min 20s", 5420),
        (" 10 m ", 600),
    ],
)
def test_times_are_read_as_people_write_them(text: str, seconds: float, call: Call) -> None:
    finish({PLAIN: 1}, "another", wall_s=seconds / 10)  # so that the time is that of ten plain runs
    found = re.search(r"3 variants, (\d+) runs", said(call("plan", "squeeze", "--budget", text, "--jobs", "1")))
    assert found is not None
    assert int(found[1]) == 9, "with SE a run takes a little longer"


@pytest.mark.parametrize("text", ["90", "", "soon", "h", "0h", "0s", "2d", "1h30", "-1h", "m30", "1,5h"])
def test_what_is_no_time_is_refused_with_examples(text: str, call: Call) -> None:
    message = told(call("plan", "squeeze", "--budget", text))
    assert "--budget" in message
    assert "2h, 90min or 1h30m" in message


# --- noise ---


def test_noise_is_learnt_from_the_records_of_any_study_of_the_protocol(call: Call) -> None:
    finish({PLAIN: 2, R16: 2}, "another")
    text = said(call("plan", "squeeze"))
    assert re.search(r"from 4 finished runs \(over-dispersion 1\.[12] assumed\)", text)
    wrong = [
        [np.load(path.parent / "predictions.npz")["wrong"] for path in sorted(Path("results/another").glob(glob))]
        for glob in ("plain-*/record.json", "se-r16-s*/record.json")
    ]
    # The share of the 200 images on which two seeds differ, by 2 N, times the 1.15 of 30 epochs.
    b = [1e4 * np.unpackbits(one ^ other).sum() / 200 / (2 * 200) for one, other in wrong]
    assert f"Noise of one run: {math.sqrt(1.15 * np.median(b)):.2f} points" in text


def test_noise_of_another_recipe_or_of_one_network_is_not_taken(call: Call) -> None:
    short = DIGITS.model_copy(update={"recipe": DIGITS.recipe.model_copy(update={"epochs": 9})})
    finish({PLAIN: 2, R16: 2}, "short", protocol=short)
    finish({PLAIN: 4, R16: 1}, "lonely")
    assert "from formulas" in said(call("plan", "squeeze"))
    finish({PLAIN: 2, R16: 2}, "rich")
    assert "from 4 finished runs" in said(call("plan", "squeeze")), "one that tells nothing hides no other"


def test_a_damaged_record_of_another_study_does_not_stop_a_plan(call):
    other = finish({PLAIN: 2, R16: 2}, "another")
    next(other.root.glob("*/record.json")).write_text("{}")
    assert call("plan", "squeeze", "--study", "third").exit_code == 0
