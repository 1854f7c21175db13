"""Which network and recipe the study of small photographs should have: short pilots, judged on the validation part.

    python benchmarks/pilots.py --data path/to/cifar10-folder

Each candidate (`pilots/protocols/`) trains SE and the plain network by a recipe of its own, so that no run of a pilot
is one of a study. What is compared is the gain of SE beside its noise, which decides what a study can resolve, on
validation images alone: other arms and test images are not looked at. Writes reports/pilots/pilots.md from
results/pilot-*/; what is finished stays.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

from measure import HERE
from tabulate import tabulate

from senet_ablate.files import write_atomic
from senet_ablate.results.records import RunRecord, read_curve
from senet_ablate.results.store import Study
from senet_ablate.spec.loading import load_ablations, load_protocol

DECLARATIONS = HERE / "pilots"
RESULTS = Path("results")


def study(name: str) -> Study:
    return Study(RESULTS / f"pilot-{name}")


def run(name: str, data: Path) -> None:
    """Train what a candidate lacks."""
    where = ["--ablations", str(DECLARATIONS), "--protocol", name, "--study", study(name).name]
    subprocess.run([sys.executable, "-m", "senet_ablate", "run", *where, "--data", str(data)], check=True)


def validation_error(where: Study, record: RunRecord) -> float:
    """Of the last epoch, in percent."""
    return read_curve(where.run(record.run_id).path / "curve.csv")[-1].val_top1_err


def line(name: str) -> dict[str, object]:
    """What a candidate came to."""
    protocol = load_protocol(DECLARATIONS, name)
    (table,) = load_ablations(DECLARATIONS)
    runs = study(name).records()
    errors = {
        row.id: {r.spec.seed: validation_error(study(name), r) for r in runs if r.spec.variant == row.variant}
        for row in table.rows
    }
    gains = [errors["original"][seed] - errors["se"][seed] for seed in errors["se"] if seed in errors["original"]]
    network = protocol.network
    return {
        "candidate": name,
        "network": f"{network.backbone}, width {network.width}",
        "images": f"{protocol.data.resolution}x{protocol.data.resolution}",
        "epochs": protocol.recipe.epochs,
        "no SE %": "  ".join(f"{error:.2f}" for error in errors["original"].values()),
        "SE %": "  ".join(f"{error:.2f}" for error in errors["se"].values()),
        "gain": f"{statistics.mean(gains):+.2f}" if gains else "",
        "by seed": "  ".join(f"{gain:+.2f}" for gain in gains),
        "min a run": f"{statistics.mean(r.provenance.wall_s for r in runs) / 60:.1f}" if runs else "",
    }


def page(names: list[str]) -> str:
    """The pilots in one table."""
    table = tabulate([line(name) for name in names], headers="keys", tablefmt="github", disable_numparse=True)
    pins = [pin for name in names if (pin := study(name).pin())]
    counts = {f"{pin.data.n_train:,} training and {pin.data.n_validation:,} validation images" for pin in pins}
    return (
        "# Pilots for `cifar10-lite`\n\n"
        "Error of the last epoch on the validation part, percent by seed; gain: no SE less SE of the same seed.\n\n"
        f"{table}\n\n"
        f"- A folder of photographs: {' or '.join(sorted(counts)) or 'not read yet'}. Neither other arms nor test "
        "images were looked at, and none of these runs is one of the study.\n"
        "- Made by `python benchmarks/pilots.py --data FOLDER` from results/pilot-*/.\n"
    )


def main() -> None:
    """Train what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="an image folder; without it only the page is written")
    chosen = parser.parse_args()
    names = sorted(path.stem for path in (DECLARATIONS / "protocols").glob("*.toml"))
    for name in names if chosen.data else []:
        run(name, chosen.data)
    write_atomic(Path("reports/pilots/pilots.md"), page(names))
    print(page(names))


if __name__ == "__main__":
    main()
