"""`excitation` and `prune` as a user types them, and where they find weights, images and classes."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import timm
import torch
from click.testing import CliRunner
from helpers import FACTS, image_folder, markdown_cells, scrambled
from timm.data import ImageNetInfo

from senet_ablate.cli.inspect import find_arms
from senet_ablate.cli.main import main
from senet_ablate.cli.options import choose
from senet_ablate.data.datasets import load_data
from senet_ablate.errors import UserError
from senet_ablate.execution.machine import Machine
from senet_ablate.execution.rerun import train_again
from senet_ablate.report.excitation import PAPER_CLASSES, choose_classes, choose_pair
from senet_ablate.results.store import Study
from senet_ablate.spec.ablation import Arm
from senet_ablate.spec.loading import all_ablations, declarations_dir, load_protocol
from senet_ablate.spec.network import SEConfig, Variant
from senet_ablate.training.request import RunRequest
from senet_ablate.training.train import train_run

ABLATIONS = declarations_dir().resolve()
SET = ["--set", "recipe.epochs=3"]
CPU = Machine("cpu", 0, 1)
DIGITS = load_protocol(ABLATIONS, "digits").data
TANH = Arm(variant=Variant(se=SEConfig(gate="tanh")))


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A folder with a study of three-epoch runs of the digits: SE and tanh, seeds 0, their weights kept."""
    root = tmp_path_factory.mktemp("begun")
    chosen = choose(["gate"], ABLATIONS, None, ["recipe.epochs=3"], None, "small", root / "results")
    chosen.study.begin(chosen.protocol, load_data(chosen.protocol.data, None).facts)
    for variant in (Variant(se=SEConfig()), TANH.variant):
        spec = chosen.protocol.run_spec(variant, 0)
        train_run(RunRequest(spec=spec, folder=chosen.study.run(spec.run_id), keep_weights=True))
    return root


@pytest.fixture
def place(begun, tmp_path, monkeypatch):
    """A copy of it, in which commands run."""
    shutil.copytree(begun, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def call(*arguments):
    return CliRunner().invoke(main, [*arguments, "--ablations", str(ABLATIONS)])


STUDY = ["--study", "small", *SET]


def test_excitation_of_two_arms_is_written_and_shown(place):
    result = call("excitation", "gate:sigmoid", "se-r16-tanh", "--classes", "3,8,1", *STUDY)
    assert result.exit_code == 0, result.output
    for slug in ("se-r16", "se-r16-tanh"):
        folder = place / "reports" / "small" / "excitation" / slug
        names = {path.name for path in folder.iterdir()}
        assert {"excitation.md", "blocks.csv", "class_means.svg", "class_means.png", "instance_spread.csv"} < names
        assert list(pd.read_csv(folder / "blocks.csv")["block"]) == ["SE_2_1", "SE_3_1", "SE_4_1", "SE_5_1"]
        drawn = pd.read_csv(folder / "class_means.csv")
        assert list(drawn["class"].unique()) == ["3", "8", "1", "all"]
        assert set(drawn[drawn["class"] == "all"]["images"]) == {load_data(DIGITS, None).facts.n_validation}
        assert set(pd.read_csv(folder / "instance_spread.csv")["class"]) == {3, 8}
    assert "SE_5_1" in result.output
    sigmoid = pd.read_csv(place / "reports/small/excitation/se-r16/class_means.csv")
    assert sigmoid["mean"].between(0, 1).all()


def test_prune_is_written_beside_it_and_shown(place):
    result = call("prune", *STUDY)
    assert result.exit_code == 0, result.output
    folder = place / "reports" / "small" / "excitation" / "se-r16"
    table = pd.read_csv(folder / "pruning.csv", keep_default_na=False)
    assert list(table["off"].unique()) == ["nothing", *(f"stage {stage}" for stage in (2, 3, 4, 5)), "all"]
    (curve,) = place.glob("results/small/se-r16-s0-*/curve.csv")
    last = pd.read_csv(curve)["val_top1_err"].iloc[-1]
    assert table["top1_err"].iloc[0] == pytest.approx(last), "with all blocks: the run's own last validation error"
    assert [cells[0] for cells in markdown_cells((folder / "pruning.md").read_text())][2:] == list(table["off"])
    assert "stage 5" in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["excitation", "gate:tan"], ["'gate:tan'", "did you mean 'gate:tanh'"]),
        (["excitation", "se-r61"], ["'se-r61'", "did you mean 'se-r16'"]),
        (["prune", "ratio:original"], ["ratio:original", "without SE"]),
        (["excitation", "gate:relu"], ["no finished run of se-r16-relu with seed 0", "--keep-weights"]),
        (["excitation", "--seed", "7"], ["no finished run of se-r16 with seed 7"]),
        (["excitation", "controls:other-seeds", "--seed", "7"], ["--seed 7", "start at 1000"]),
        (["excitation", "--classes", "eleven"], ["'eleven'", "0, 1, 2"]),
        (["excitation", "--weights", "broken.pt"], ["broken.pt", "cannot be read as weights"]),
        (["excitation", "--weights", "list.pt"], ["list.pt", "expected a state dict"]),
        (
            ["excitation", "--weights", "other.pt"],
            ["other.pt", "not the weights of se-r16 on resnet14, width 16", "Missing key"],
        ),
        (["excitation", "--weights", "released.pt"], ["released.pt", "imagenet-resnet50"]),
        (["excitation", "gate:tanh", "gate:relu", "--weights", "list.pt"], ["list.pt", "one variant"]),
    ],
)
def test_a_mistake_is_one_message_with_exit_code_2(place, arguments, words):
    Path("broken.pt").write_bytes(b"no weights")
    torch.save([torch.zeros(1)], "list.pt")
    torch.save({"conv1.weight": torch.zeros(16, 1, 3, 3), "fc.weight": torch.zeros(10, 1024)}, "other.pt")
    torch.save({"layer0.conv1.weight": torch.zeros(64, 3, 7, 7)}, "released.pt")
    result = call(*arguments, *STUDY)
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit), "no traceback"
    told = " ".join(result.stderr.split())
    assert all(word in told for word in words), told


def test_weights_from_a_file_of_ours(place):
    (kept,) = place.glob("results/small/se-r16-tanh-*/weights.pt")
    shutil.copy(kept, place / "mine.pt")
    result = call("excitation", "gate:tanh", "--weights", "mine.pt", *STUDY)
    assert result.exit_code == 0, result.output
    of_run = call("excitation", "gate:tanh", *STUDY)
    assert of_run.exit_code == 0, of_run.output
    both = [place / "reports/small/excitation" / name / "blocks.csv" for name in ("mine", "se-r16-tanh")]
    assert both[0].read_bytes() == both[1].read_bytes()


def test_a_run_without_weights_is_trained_again_and_told_apart_from_one_that_comes_out_otherwise(place):
    (kept,) = place.glob("results/small/se-r16-tanh-*/weights.pt")
    weights = torch.load(kept, weights_only=True)
    kept.unlink()
    result = call("excitation", "gate:tanh", *STUDY)
    assert result.exit_code == 0, result.output
    assert "its predictions equal the recorded ones" in " ".join(result.stderr.split())
    again = torch.load(kept, weights_only=True)
    assert all(torch.equal(value, again[name]) for name, value in weights.items())

    # The same run beside the predictions of another stands for a machine on which it comes out otherwise.
    chosen = choose(["gate"], ABLATIONS, None, [SET[1]], None, "small", place / "results")
    record = chosen.study.record(chosen.protocol.run_spec(TANH.variant, 0))
    (other,) = place.glob("results/small/se-r16-s0-*")
    (other / "weights.pt").unlink()
    _, outcome = train_again(record, chosen.study.run(other.name), None, CPU)
    assert "of 768 test outcomes differ" in outcome
    assert not (other / "weights.pt").exists(), "weights of another outcome are not kept as those of the record"


@pytest.fixture
def released(tmp_path, monkeypatch, decode_cache):
    """Random weights in the released layout, and a tiny folder of the paper's four classes and two others."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    torch.save(scrambled(timm.create_model("legacy_seresnet50")).state_dict(), "seresnet50.pth")
    classes = (*PAPER_CLASSES.values(), "n01440764", "n01484850")
    return image_folder(tmp_path / "images", classes, test="val", per_class=(2, 3), side=48)


SMALL_IMAGENET = [word for change in ("data.resolution=40", "data.resize=44") for word in ("--set", change)]


def test_released_weights_are_looked_at_on_the_papers_classes(released):
    protocol = ["--protocol", "imagenet-resnet50", *SMALL_IMAGENET, "--study", "paper", "--data", str(released)]
    result = call("excitation", "--weights", "seresnet50.pth", *protocol)
    assert result.exit_code == 0, result.output
    folder = Path("reports/paper/excitation/seresnet50")
    drawn = pd.read_csv(folder / "class_means.csv")
    assert list(drawn["class"].unique()) == [*PAPER_CLASSES, "all"]
    assert set(drawn[drawn["class"] == "cliff"]["images"]) == {3}, "the three images of val, not those of train"
    assert set(pd.read_csv(folder / "instance_spread.csv")["class"]) == {"goldfish", "plane"}
    assert "legacy_seresnet50" in (folder / "excitation.md").read_text()

    refused = call("prune", "--weights", "seresnet50.pth", *protocol)
    assert refused.exit_code == 2
    assert "1000 classes apart and the images are of 6" in " ".join(refused.stderr.split())
    named = call("excitation", "ratio:r8", "--weights", "seresnet50.pth", *protocol)
    assert named.exit_code == 2
    assert "name no variant with them" in " ".join(named.stderr.split())


def test_the_papers_classes_are_these_of_imagenets():
    info = ImageNetInfo()
    indices = {"goldfish": 1, "pug": 254, "plane": 726, "cliff": 972}
    assert {name: info.index_to_label_name(number) for name, number in indices.items()} == PAPER_CLASSES
    assert "carpenter's plane" in info.index_to_description(726)


def test_classes_are_chosen_by_name_else_the_papers_else_the_first_five():
    four = FACTS.model_copy(update={"class_names": (*sorted(PAPER_CLASSES.values()), "n99999999")})
    assert choose_classes(four) == {"goldfish": 0, "pug": 1, "plane": 2, "cliff": 3}
    assert choose_classes(four, ["cliff", "n99999999"]) == {"cliff": 3, "n99999999": 4}
    three = four.model_copy(update={"class_names": four.class_names[1:]})
    assert choose_classes(three) == {name: number for number, name in enumerate(three.class_names)}
    assert list(choose_classes(FACTS)) == ["0", "1", "2", "3", "4"]
    with pytest.raises(UserError, match="no class 'goldfish'"):
        choose_classes(three, ["goldfish"])
    assert choose_pair(choose_classes(four)) == ["goldfish", "plane"]
    assert choose_pair(["a", "b", "c"]) == ["a", "b"]
    assert choose_pair(["a"]) == ["a"]


def test_arms_are_found_by_row_and_by_slug():
    tables = all_ablations(ABLATIONS)
    assert find_arms(["gate:tanh", "se-r16-tanh"], tables) == {TANH: "gate"}
    assert find_arms(["controls:other-seeds"], tables) == {
        Arm(variant=Variant(se=SEConfig()), first_seed=1000): "controls"
    }
    assert find_arms(["pruning:no-stage5"], tables).popitem()[0].slug == "se-r16-stage234"


def test_begun_study_stays_readable_with_weights_in_its_folders(begun):
    assert len(Study(begun / "results" / "small").records()) == 2
