"""The benchmark's results as a page and figures."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from senet_ablate.report.figures.style import style

HEADINGS = {
    "epoch_vs_usual_script": "Epochs per second, relative to the usual script",
    "epoch_vs_bare_loop": "Epochs per second, relative to a bare loop",
    "study_vs_usual_script": "`run ratio` with 3 seeds, relative to 18 runs of the usual script",
    "cores_busy": "Share of processor time in use while a study trains",
}
DATA = ("digits", "images")
AXES = {
    "arms": "variants (2 seeds each)",
    "seeds": "seeds (2 variants)",
    "images": "images of 16x16",
    "pixels": "side of the images, px",
}


def page(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    made = result["hardware"]
    lines = [
        "# Speed",
        "",
        f"Measured by `make bench` on {made['cpu']}, {made['cores']} cores, torch {made['torch']}, "
        f"Lightning {made['pytorch-lightning']}, commit {_commits(result['commits'])}; ratios, sides measured in turn; "
        f"images: {result['images']}. The usual script is Lightning with torchvision transforms in a DataLoader, "
        "float32, default threads (`benchmarks/usual_script.py`); "
        "the bare loop has all optimisations and nothing else (`benchmarks/one.py`).",
        "",
        "| comparison | data | median | least | largest | rounds |",
        "|:--|:--|--:|--:|--:|--:|",
    ]
    rows = [(heading, data, result.get(f"{key}_{data}")) for key, heading in HEADINGS.items() for data in DATA]
    lines += [f"| {heading} | {data} | {_three(found)} | {found['n']} |" for heading, data, found in rows if found]
    if "ablate_s" in result:
        lines += [
            "",
            f"`make ablate` on digits (17 variants, 3 seeds): {result['ablate_s'] / 60:.1f} minutes, "
            f"{result['cores_busy_ablate']:.0%} of processor time in use once workers have started; without "
            f"optimisations {result['ablate_without_levers_s'] / 60:.1f} minutes "
            "([errors with and without](optimisations.md)).",
        ]
    lines += ["", *_optimisations(result), *_growth(result), *_block(result)]
    return "\n".join(lines).rstrip() + "\n"


def _commits(by_part: dict[str, str]) -> str:
    """The commit that was measured, or each with its parts."""
    parts: dict[str, list[str]] = {}
    for part, commit in by_part.items():
        parts.setdefault(commit[:10], []).append(part)
    return next(iter(parts)) if len(parts) == 1 else ", ".join(f"{key} ({', '.join(of)})" for key, of in parts.items())


def _three(found: dict[str, float]) -> str:
    return " | ".join(f"{found[key]:.2f}" for key in ("median", "min", "max"))


def _optimisations(result: dict[str, Any]) -> list[str]:
    lines = []
    for data in DATA:
        for name, found in result.get(f"without_lever_{data}", {}).items():
            lines.append(f"| {name} | {data} | {_three(found)} |")
    if not lines:
        return []
    head = ["## Optimisations", "", "Seconds per epoch without the optimisation, relative to all optimisations.", ""]
    return [*head, "| without | data | median | least | largest |", "|:--|:--|--:|--:|--:|", *lines, ""]


def _growth(result: dict[str, Any]) -> list[str]:
    if "growth" not in result:
        return []
    lines = ["## Growth", "", "![Seconds of a study against variants, seeds, images and their size](growth.svg)", ""]
    lines += ["| what | value | seconds of the study | MB per worker |", "|:--|--:|--:|--:|"]
    for what, points in result["growth"].items():
        for point in points:
            lines.append(f"| {AXES[what]} | {point['value']:,} | {point['wall_s']:.1f} | {point['worker_mb']:.0f} |")
    lines += ["", "| command | processor seconds to start | least | largest |", "|:--|--:|--:|--:|"]
    lines += [f"| {name} | {_three(found)} |" for name, found in result["start_up_s"].items()]
    return [*lines, ""]


def _block(result: dict[str, Any]) -> list[str]:
    if "block_ms" not in result:
        return []
    names = {"small": "ResNet-14, width 16, 32x32", "paper": "ResNet-50, 224x224"}
    lines = ["## What the SE block costs", "", "![Time of each variant relative to no SE](block.svg)", ""]
    lines += [
        "Milliseconds on one thread, eager, float32, and the median of the rounds' ratios to the network without SE.",
        "",
    ]
    lines += [
        "| network | work | variant | ms | relative to no SE | least | largest |",
        "|:--|:--|:--|--:|--:|--:|--:|",
    ]
    for network, kinds in result["block_ms"].items():
        for kind, arms in kinds.items():
            for arm, milliseconds in arms.items():
                ratios = _to_plain(arms, arm)
                three = f"{statistics.median(ratios):.2f} | {min(ratios):.2f} | {max(ratios):.2f}"
                lines.append(
                    f"| {names[network]} | {kind} | {_label(arm)} | {statistics.median(milliseconds):.1f} | {three} |"
                )
    lines += [
        "",
        "The paper (section 6.1) prints 164 ms for ResNet-50 and 167 ms for SE-ResNet-50 on its processor: 1.02.",
    ]
    return [*lines, ""]


def _label(arm: str) -> str:
    return "no SE" if arm == "plain" else arm


def _to_plain(arms: dict[str, list[float]], arm: str) -> list[float]:
    return [mine / plain for mine, plain in zip(arms[arm], arms["plain"], strict=True)]


def draw(result: dict[str, Any], folder: Path) -> None:
    """Draw what has been measured: growth.svg and block.svg."""
    with style():
        if "growth" in result:
            _draw_growth(result["growth"]).savefig(folder / "growth.svg", metadata={"Date": None})
        if "block_ms" in result:
            _draw_block(result["block_ms"]).savefig(folder / "block.svg", metadata={"Date": None})


def _draw_growth(growth: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    for axes, (what, points) in zip(figure.subplots(1, 4), growth.items(), strict=True):
        values, seconds = [point["value"] for point in points], [point["wall_s"] for point in points]
        axes.plot(values, seconds, "o-", color="#0072B2")
        axes.margins(0.08)
        axes.set(xlabel=AXES[what], ylim=(0, None), xlim=(0, None))
    figure.axes[0].set_ylabel("seconds of the study")
    return figure


def _draw_block(block_ms: dict[str, Any]) -> Figure:
    panels = [(network, kind, arms) for network, kinds in block_ms.items() for kind, arms in kinds.items()]
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    for axes, (network, kind, arms) in zip(figure.subplots(1, len(panels), sharey=True), panels, strict=True):
        names = [arm for arm in arms if arm != "plain"][::-1]
        for height, arm in enumerate(names):
            ratios = _to_plain(arms, arm)
            ends = [min(ratios), max(ratios)]
            axes.plot(ends, [height, height], color="#56B4E9", lw=4, solid_capstyle="round")
            axes.plot(statistics.median(ratios), height, "o", color="#0072B2")
        axes.axvline(1, color="0.6", lw=1)
        axes.set(yticks=range(len(names)), yticklabels=names, xlabel="relative to no SE")
        axes.set_title(f"{'ResNet-50' if network == 'paper' else 'ResNet-14'}\n{kind}")
    return figure
