"""A study in one line, against the records themselves."""

import csv
import json
import statistics
from pathlib import Path

import pytest

from senet_ablate.analysis.study import assess
from senet_ablate.report.overview import overview_markdown
from senet_ablate.results.plan import declared_tables
from senet_ablate.results.store import Study

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["digits-reference", "cifar10-lite-controls"])
def test_runs_variants_errors_gain_and_verdicts_are_those_of_the_records(name: str) -> None:
    records = [json.loads(file.read_text()) for file in (ROOT / "results" / name).glob("*/record.json")]
    errors: dict[str, list[float]] = {}
    for record in records:
        stem = record["run_id"].rpartition("-")[0].rpartition("-s")
        series = "@1000" if int(stem[2]) >= 1000 else ""
        errors.setdefault(stem[0] + series, []).append(record["metrics"]["top1_err"])
    gain = statistics.mean(errors["plain"]) - statistics.mean(errors["se-r16"])
    study = Study(ROOT / "results" / name)
    assessment = assess(declared_tables(ROOT / "ablations", [], study), study)
    heading, _, line = overview_markdown(assessment).splitlines()
    cells = dict(zip(heading.strip("| ").split(" | "), line.strip("| ").split(" | "), strict=True))
    assert cells["study"] == f"`{name}`"
    assert int(cells["variants"]) == len(errors)
    counts = sorted({len(each) for each in errors.values()})
    assert cells["seeds"] == (f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}")
    assert float(cells["no SE, %"]) == pytest.approx(statistics.mean(errors["plain"]), abs=0.005)
    assert float(cells["SE gain, points"].partition(" ± ")[0]) == pytest.approx(gain, abs=0.005)
    with (ROOT / "reports" / name / "tables" / "findings.csv").open(encoding="utf-8") as file:
        judged = {row["finding"]: row["finding_verdict"] for row in csv.DictReader(file)}
    primary = [claim.id for table in assessment.about for claim in table.claims if not claim.secondary]
    counted = [judged[each] for each in primary]
    assert int(cells["holds here"]) == counted.count("reproduced")
    assert int(cells["fails here"]) == counted.count("contradicted")
    assert int(cells["open"]) <= counted.count("not resolved"), "what was not run is not counted"
