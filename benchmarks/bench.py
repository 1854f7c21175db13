"""How fast the suite is, measured side by side in one run: `make bench`, or `python benchmarks/bench.py --help`.

(a) An epoch and (b) a whole study, beside a usual Lightning script and a bare loop; (c) how a study's time and memory
grow, and how long commands take to start; (d) the time of the SE block. Sides are measured in turn, so that other load
on the machine hits both. Rates are of the whole machine: the suite and the bare loop train one network per core, the
usual script one network at a time with all threads, as it is used.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from growth import growth, start_up
from images import make, subset
from measure import CORES, HERE, say, together, tuned
from page import draw, page
from speed import Setting, ablate, epochs, optimisations, study

from senet_ablate import environment

PARTS = ("epoch", "optimisations", "study", "ablate", "growth", "block")
IMAGES = 10_000


def hardware() -> dict[str, str | int]:
    """The machine and library versions of the measurement."""
    versions = environment.library_versions()
    return {
        "cpu": environment.cpu_model(),
        "cores": CORES,
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{name: versions[name] for name in ("pytorch-lightning", "torchvision")},
    }


def block(count: int) -> dict[str, Any]:
    """Time of each position and squeeze of the block, in a process of its own."""
    say("latency of the SE block")
    command = [sys.executable, str(HERE / "block.py"), "--rounds", str(count)]
    return {name: together([[*command, "--network", name]], tuned())[0] for name in ("small", "paper")}


def measure(part: str, settings: list[Setting], count: int, output: Path) -> dict[str, Any]:
    """One part of the benchmark. Keys end with the data set's name; those of the last also stand without it."""
    if part == "growth":
        return {"growth": growth(), "start_up_s": start_up(count)}
    if part == "ablate":
        return ablate(output / "optimisations.md")
    if part == "block":
        return {"block_ms": block(max(9, count))}
    found: dict[str, Any] = {}
    for setting in settings:
        if part == "optimisations":
            found[f"without_lever_{setting.name}"] = optimisations(setting, count)
            continue
        measured = epochs(setting, count) if part == "epoch" else study(setting, count)
        found |= {f"{name}_{setting.name}": value for name, value in measured.items()}
        found |= {name: value for name, value in measured.items() if isinstance(value, dict) and "median" in value}
    return found


def main() -> None:
    """Measure, print, and write reports/bench/."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--data", type=Path, help=f"your image folder, of which {IMAGES:,} are used [default: synthetic images]"
    )
    parser.add_argument(
        "--parts",
        default=",".join(PARTS),
        help="measure these parts, and keep the last results of the others [%(default)s]",
    )
    parser.add_argument("--output", type=Path, default=Path("reports/bench"))
    chosen = parser.parse_args()
    if unknown := set(chosen.parts.split(",")) - set(PARTS):
        parser.error(f"--parts {','.join(sorted(unknown))}: expected some of {','.join(PARTS)}")
    chosen.output.mkdir(parents=True, exist_ok=True)
    file = chosen.output / "bench.json"
    result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    with tempfile.TemporaryDirectory() as folder:
        some = Path(folder) / "images"
        if chosen.data:
            subset(chosen.data.resolve(), some, IMAGES, 2_000)
        else:
            make(some, IMAGES, 2_000)
        settings = [Setting("digits", "digits", None, 20, None), Setting("images", "cifar10-folder", some, 5, 2)]
        for part in chosen.parts.split(","):
            found = measure(part, settings, chosen.rounds, chosen.output)
            source = "a folder of photographs" if chosen.data else "synthetic images"
            result |= found | {
                "hardware": hardware(),
                "commits": result.get("commits", {}) | {part: environment.code_state()[0]},
                "images": f"{IMAGES:,} of {source}",
            }
            file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            (chosen.output / "bench.md").write_text(page(result), encoding="utf-8")
            draw(result, chosen.output)
    print(page(result))


if __name__ == "__main__":
    main()
