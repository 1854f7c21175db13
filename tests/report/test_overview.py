"""A study in one line, against the records themselves."""

import csv
import json
import statistics
from pathlib import Path

import pytest

from senet_ablate.analysis.study import assess
from senet_ablate.report.overview import overview_markdown
from senet_ablate.results.store import Study
from senet_ablate.spec.loading import load_ablations

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("name", "not_run"), [("digits-reference", 0), ("cifar10-lite-controls", 14)])
def test_runs_variants_gain_and_verdicts_are_those_of_the_records(name: str, not_run: int) -> None:
    """The controls train SE and no SE of the paper's rows: of its findings 10a alone has a comparison with runs."""
    records = [json.loads(file.read_text()) for file in (ROOT / "results" / name).glob("*/record.json")]
    errors: dict[str, list[float]] = {}
    for record in records:
        stem = record["run_id"].rpartition("-")[0].rpartition("-s")
        series = "@1000" if int(stem[2]) >= 1000 else ""
        errors.setdefault(stem[0] + series, []).append(record["metrics"]["top1_err"])
    gain = statistics.mean(errors["plain"]) - statistics.mean(errors["se-r16"])
    study = Study(ROOT / "results" / name)
    heading, _, line = overview_markdown(assess(load_ablations(ROOT / "ablations"), study)).splitlines()
    cells = dict(zip(heading.strip("| ").split(" | "), line.strip("| ").split(" | "), strict=True))
    assert cells["study"] == f"`{name}`"
    assert int(cells["runs"]) == len(records)
    assert int(cells["variants"]) == len(errors)
    assert float(cells["SE gain, points"].partition(" ± ")[0]) == pytest.approx(gain, abs=0.005)
    verdicts = {kind: int(cells[kind]) for kind in ("reproduced", "contradicted", "not resolved", "not run")}
    assert sum(verdicts.values()) == 15, "the paper's findings"
    assert verdicts["not run"] == not_run
    with (ROOT / "reports" / name / "tables" / "findings.csv").open(encoding="utf-8") as file:
        judged = {row["finding"]: row["finding_verdict"] for row in csv.DictReader(file) if row["table"]}
    primary = {
        claim.id for table in load_ablations(ROOT / "ablations") for claim in table.claims if not claim.secondary
    }
    counted = [judged[each] for each in primary]
    assert verdicts["reproduced"] == counted.count("reproduced")
    assert verdicts["contradicted"] == counted.count("contradicted")
