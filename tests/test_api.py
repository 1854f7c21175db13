"""The public API: lazy, and with the statistics that independent references give."""

import runpy
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import FACTS, PROTOCOL, make_record, write_record
from scipy import stats
from studies import ABLATIONS

import senet_ablate
from senet_ablate import SqueezeExcitation, compare, load_model, load_study
from senet_ablate.errors import UserError
from senet_ablate.results.store import Study
from senet_ablate.spec.network import Variant

ROOT = ABLATIONS.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def test_importing_the_package_imports_no_torch():
    code = "import sys, senet_ablate; dir(senet_ablate); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_every_public_name_is_there_and_documented_with_an_example():
    for name in senet_ablate.__all__:
        assert ">>>" in (getattr(senet_ablate, name).__doc__ or ""), name
    assert set(senet_ablate.__all__) <= set(dir(senet_ablate))
    with pytest.raises(AttributeError, match="no attribute 'SqueezeAndExcite'"):
        _ = senet_ablate.SqueezeAndExcite


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning", "ignore::UserWarning:pytorch_lightning")
def test_examples_run_as_they_stand(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(path.parent)
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out.strip()


def test_a_block_takes_its_settings_as_keywords():
    block = SqueezeExcitation(64, reduction=8, squeeze="max", gate="tanh", bias=True)
    assert block.reduce.weight.shape == (8, 64, 1, 1)
    x = torch.randn(2, 64, 5, 5)
    z = x.amax((2, 3))
    hidden = torch.relu(z @ block.reduce.weight.flatten(1).T + block.reduce.bias)
    s = torch.tanh(hidden @ block.expand.weight.flatten(1).T + block.expand.bias)
    assert torch.allclose(block(x), x * s[:, :, None, None], atol=1e-6)


def test_accuracies_are_compared_as_by_dunnett():
    plain, one, other = [91.0, 91.4, 90.9], [92.1, 92.6, 92.0], [90.0, 91.0, 91.5]
    frame = compare({"plain": plain, "one": one, "other": other})
    reference = stats.dunnett(one, other, control=plain, rng=np.random.default_rng(0))
    assert frame.loc[["one", "other"], "p"].tolist() == pytest.approx(reference.pvalue.tolist(), abs=0.005)
    interval = reference.confidence_interval(0.95)
    # Errors fall where accuracies rise.
    assert frame.loc[["one", "other"], "low"].tolist() == pytest.approx((-interval.high).tolist(), abs=0.02)
    assert frame.loc["one", "difference"] == pytest.approx(np.mean(plain) - np.mean(one))


def test_outcomes_per_image_give_a_narrower_interval_where_variants_fail_on_the_same_images():
    draw = np.random.default_rng(1)
    hard = draw.random(4000) < 0.2  # both variants fail on these
    runs = {name: [~(hard | (draw.random(4000) < rate)) for _ in range(3)] for name, rate in (("a", 0.05), ("b", 0.02))}
    by_images = compare(runs)
    by_accuracy = compare({name: [100 * run.mean() for run in each] for name, each in runs.items()})
    assert by_images["error"].tolist() == pytest.approx(by_accuracy["error"].tolist())
    assert by_images.loc["b", "difference"] == pytest.approx(by_accuracy.loc["b", "difference"])
    assert by_images.loc["b", "high"] < 0, "2.4 points between variants whose runs differ by chance alone"


@pytest.mark.parametrize(
    "runs",
    [
        {},
        {"a": [1.0, 2.0]},
        {"a": [1.0], "b": [2.0]},
        {"a": [], "b": [1.0, 2.0]},
        {"a": [[True], [True, False]], "b": [1]},
    ],
)
def test_what_cannot_be_compared_is_refused(runs):
    with pytest.raises(UserError, match=r"^compare: "):
        compare(runs)


def test_a_study_is_frames(monkeypatch):
    monkeypatch.chdir(ROOT)
    study = load_study("results/digits-reference")
    runs, table = study.runs(), study.table("ratio")
    r16 = runs[runs["variant"] == "se-r16"]
    assert len(r16) == len(list((ROOT / "results" / "digits-reference").glob("se-r16-s?-*")))
    assert table.set_index("row").loc["r16", "top1_err_mean"] == pytest.approx(r16["top1_err"].mean())
    assert {"10a", "12b"} <= set(study.findings()["finding"])
    with pytest.raises(UserError, match="no table 'ration'"):
        study.table("ration")


def test_folders_without_a_study_or_a_run_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"no study\.json"):
        load_study(tmp_path)
    with pytest.raises(UserError, match="no finished run"):
        load_model(tmp_path)


def test_code_that_only_a_record_names_is_not_run_unless_it_is_allowed(tmp_path, monkeypatch):
    (tmp_path / "theirs.py").write_text("raise SystemExit('it ran')")
    monkeypatch.chdir(tmp_path)
    study = Study(tmp_path / "results" / "found")
    study.begin(PROTOCOL, FACTS)
    folder = write_record(study, make_record(Variant(block="theirs:Block", source="f00d"), 0))
    torch.save({}, folder / "weights.pt")
    with pytest.raises(UserError, match=r"only its record names the code 'theirs:Block'; to run it, add allow="):
        load_model(folder)
    with pytest.raises(UserError, match="not the weights of"):  # allowed, so that its file is looked into
        load_model(folder, allow=["theirs:Block"])
