"""The page, tables and figures of a declared series."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result
from helpers import FACTS, PLAIN, PROTOCOL, R16, make_record, write_record
from test_page import Reader

from senet_ablate.errors import UserError
from senet_ablate.results.store import Study
from senet_ablate.spec.loading import declarations_dir, load_ablations, load_protocol
from senet_ablate.spec.network import SEConfig, Variant
from senet_ablate.spec.series import load_series, printed_gains

GAINS = {6: (-15.0, 0.0, -25.0), 24: (3.0, 9.0, -25.5), 48: (20.0, 20.0, -25.0)}
"""Points of error that SE, SE from 1 and the constant take away, by epochs of training."""
ROWS = (R16, Variant(se=SEConfig(gate="double-sigmoid")), Variant(se=SEConfig(gate="constant")))


def put(root: Path, epochs: int) -> None:
    recipe = PROTOCOL.recipe.model_copy(update={"epochs": epochs})
    protocol = PROTOCOL.model_copy(update={"recipe": recipe, "images": "made-images"})
    study = Study(root / f"training-length-{epochs}")
    study.begin(protocol, FACTS)
    for variant, gain in ((PLAIN, 0.0), *zip(ROWS, GAINS[epochs], strict=True)):
        for seed, apart in enumerate((-0.5, 0.0, 0.5)):
            write_record(study, make_record(variant, seed, 50.0 - gain + apart, protocol=protocol))


def test_a_series_has_a_line_for_each_row_a_crossing_and_its_findings(
    tmp_path: Path, call: Callable[..., Result]
) -> None:
    for epochs in GAINS:
        put(tmp_path / "results", epochs)
    result = call("summary", "--series", "training-length")
    assert result.exit_code == 0, result.output
    home = tmp_path / "reports" / "training-length"
    frame = pd.read_csv(home / "tables" / "gains.csv")
    assert frame["gain"].tolist() == pytest.approx(
        [gain for row in range(3) for gain in (each[row] for each in GAINS.values())]
    )
    assert set(frame["dataset"]) == {"made-images"}
    assert frame["error_no_se"].tolist() == pytest.approx([50.0] * 9)
    findings = pd.read_csv(home / "tables" / "findings.csv", index_col="finding")
    assert findings.loc["shrinks", "estimate"] == pytest.approx(18.0)
    assert findings["verdict"].to_dict() == {
        "shrinks": "reproduced",
        "start": "not resolved",
        "ahead": "reproduced",
        "constant": "reproduced",
    }
    trend = pd.read_csv(home / "figures" / "trend.csv")
    assert trend["line"].nunique() == 3
    assert trend["value"].tolist() == [6, 24, 48] * 3
    page = (home / "index.html").read_text()
    assert "the gain crosses 0 at" in page
    assert "made-images, " in page
    assert Reader(page).open == []


def test_a_series_says_what_has_not_been_run(tmp_path: Path, call: Callable[..., Result]) -> None:
    put(tmp_path / "results", 6)
    result = call("summary", "--series", "training-length")
    assert result.exit_code == 0, result.output
    assert "Not run yet: 24 epochs, 48 epochs." in " ".join(result.output.split())
    assert not (tmp_path / "reports" / "training-length" / "figures" / "trend.csv").exists(), "one value is no trend"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--series", "training-lenght"), "did you mean 'training-length'"),
        (("--series", "training-length"), "none of its studies has runs to compare"),
        (("--series", "training-length", "one"), "one of the two"),
        ((), "one of the two"),
        (("--series", "training-length", "--finding", "12b"), "--finding is for studies that are named"),
    ],
)
def test_mistakes_in_the_call_are_named(call: Callable[..., Result], words: tuple[str, ...], told: str) -> None:
    result = call("summary", *words)
    assert result.exit_code == 2
    assert told in " ".join(result.output.split())


@pytest.mark.parametrize("name", [path.stem for path in (declarations_dir() / "series").glob("*.toml")])
def test_declared_series_name_rows_that_their_tables_have(name: str) -> None:
    directory = declarations_dir()
    series = load_series(directory, name)
    rows = {row.id for table in load_ablations(directory, series.tables) for row in table.rows}
    assert set(series.rows) <= rows


def test_printed_gains_are_those_of_the_papers_tables() -> None:
    directory = declarations_dir()
    found = printed_gains(directory, load_series(directory, "networks").studies)
    assert found["networks-mobilenet"] == pytest.approx(3.1)  # Table 3: 28.4 to 25.3
    assert found["networks-wrn"] == pytest.approx(0.39)  # Table 4: 4.27 to 3.88
    assert len(found) == 8


def test_every_family_of_the_series_has_a_protocol() -> None:
    directory = declarations_dir()
    for study in load_series(directory, "networks").studies:
        protocol = load_protocol(directory, study.name.replace("networks", "cifar10"))
        assert protocol.data.resolution == 32
        assert 8 <= protocol.recipe.epochs <= 12


def test_a_mistake_in_a_series_names_file_and_key(tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    text = (declarations_dir() / "series" / "networks.toml").read_text(encoding="utf-8")
    (tmp_path / "series" / "networks.toml").write_text(text.replace("at_least = 4", "at_lest = 4"), encoding="utf-8")
    with pytest.raises(UserError, match=r"networks.toml, claim 'half'.*at_lest.*did you mean 'at_least'"):
        load_series(tmp_path, "networks")
