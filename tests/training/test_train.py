"""One training: repeatable, resumable bit for bit, tested once, and honest when it diverges."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from senet_ablate.data.datasets import load_data
from senet_ablate.data.loaders import EpochSampler
from senet_ablate.errors import UserError
from senet_ablate.models.build import build_network
from senet_ablate.results.records import Predictions
from senet_ablate.results.store import RunFolder
from senet_ablate.spec.network import Network, Placement, SEConfig, Variant
from senet_ablate.spec.protocol import Augmentation, DataConfig, Recipe, RunSpec, Schedule
from senet_ablate.training import checkpoint, train
from senet_ablate.training.evaluation import evaluate, resolve_precision
from senet_ablate.training.module import AblationModule
from senet_ablate.training.request import RunRequest
from senet_ablate.training.train import make_trainer, train_run

NETWORK = Network(backbone="resnet14", width=16, stem="small")
RECIPE = Recipe(
    epochs=3,
    batch_size=128,
    lr=0.05,
    label_smoothing=0.1,
    schedule=Schedule(warmup_epochs=1),
    augmentation=Augmentation(crop_padding=1),
)
PLAIN = Variant()
SE = Variant(se=SEConfig())


def spec(variant=SE, seed=0, precision="fp32", recipe=RECIPE):
    data = DataConfig(dataset="digits", resolution=8)
    return RunSpec(network=NETWORK, data=data, recipe=recipe, precision=precision, variant=variant, seed=seed)


def changed(**fields):
    return Recipe(**(RECIPE.model_dump() | fields))


def trained(root: Path, what: RunSpec, **fields):
    folder = RunFolder(root / what.run_id)
    return train_run(RunRequest(spec=what, folder=folder, **fields)), folder


def outcome(folder: RunFolder):
    return [(folder.path / name).read_bytes() for name in ("curve.csv", "predictions.npz")]


class CutOffError(Exception):
    """Stands for whatever ends a process in the middle."""


@pytest.fixture
def interrupt_after(monkeypatch):
    """End training right after the checkpoint of an epoch, once."""

    def arrange(epoch):
        save = pl.Trainer.save_checkpoint

        def save_then_end(trainer, path):
            save(trainer, path)
            if trainer.current_epoch + 1 == epoch:
                monkeypatch.setattr(pl.Trainer, "save_checkpoint", save)
                raise CutOffError

        monkeypatch.setattr(pl.Trainer, "save_checkpoint", save_then_end)
        monkeypatch.setattr(checkpoint, "CHECKPOINT_SHARE", float("inf"))

    return arrange


@pytest.mark.parametrize(
    "variant",
    [
        PLAIN,
        SE,
        Variant(se=SEConfig(squeeze="max", gate="tanh")),
        Variant(se=SEConfig(squeeze="none", bias=True), placement=Placement(position="post")),
        Variant(se=SEConfig(gate="relu"), placement=Placement(stages=(3,), position="inner-3x3")),
    ],
    ids=lambda variant: variant.slug,
)
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(tmp_path, interrupt_after, variant):
    _, whole = trained(tmp_path / "whole", spec(variant))
    interrupt_after(epoch=2)
    with pytest.raises(CutOffError):
        trained(tmp_path / "cut", spec(variant))
    record, resumed = trained(tmp_path / "cut", spec(variant))
    assert record.provenance.resumed_at_epoch == 2
    assert outcome(resumed) == outcome(whole)


def test_a_plateau_schedule_resumes_with_the_losses_it_has_seen(tmp_path, interrupt_after):
    recipe = changed(epochs=4, schedule=Schedule(kind="plateau", patience=1).model_dump())
    _, whole = trained(tmp_path / "whole", spec(recipe=recipe))
    interrupt_after(epoch=3)
    with pytest.raises(CutOffError):
        trained(tmp_path / "cut", spec(recipe=recipe))
    _, resumed = trained(tmp_path / "cut", spec(recipe=recipe))
    assert outcome(resumed) == outcome(whole)


def test_a_run_with_mixed_images_resumes_bit_for_bit(tmp_path, interrupt_after):
    recipe = changed(augmentation={"crop_padding": 1, "mix": ("mixup", "cutmix"), "mix_alpha": 0.4})
    record, whole = trained(tmp_path / "whole", spec(recipe=recipe))
    interrupt_after(1)
    with pytest.raises(CutOffError):
        trained(tmp_path / "other", spec(recipe=recipe))
    resumed, other = trained(tmp_path / "other", spec(recipe=recipe))
    assert (record.status, resumed.provenance.resumed_at_epoch) == ("ok", 1)
    assert outcome(other) == outcome(whole)
    _, unmixed = trained(tmp_path / "unmixed", spec())
    assert outcome(unmixed)[0] != outcome(whole)[0]


def test_an_end_between_training_and_test_repeats_the_test_only(tmp_path, monkeypatch):
    _, whole = trained(tmp_path / "whole", spec())

    def end(*arguments):
        raise CutOffError

    with monkeypatch.context() as patch:
        patch.setattr(train, "evaluate", end)
        with pytest.raises(CutOffError):
            trained(tmp_path / "cut", spec())
    monkeypatch.setattr(train, "make_trainer", end)  # nothing is left to train
    record, resumed = trained(tmp_path / "cut", spec())
    assert record.provenance.resumed_at_epoch == RECIPE.epochs
    assert outcome(resumed) == outcome(whole)


def test_the_same_seed_repeats_itself_and_another_does_not(tmp_path):
    _, first = trained(tmp_path / "first", spec(seed=0))
    torch.manual_seed(12345)  # the global stream must not matter
    _, again = trained(tmp_path / "again", spec(seed=0))
    _, other = trained(tmp_path / "other", spec(seed=1))
    assert outcome(first) == outcome(again)
    assert outcome(first)[1] != outcome(other)[1]


def test_weights_are_kept_when_asked_for_and_are_no_part_of_the_run(tmp_path):
    record, folder = trained(tmp_path / "kept", spec(), keep_weights=True)
    bare, without = trained(tmp_path / "bare", spec())
    assert not without.weights_file.exists()
    assert (record.run_id, record.sha256) == (bare.run_id, bare.sha256)
    assert outcome(folder) == outcome(without)
    assert not list(folder.path.glob("*.ckpt"))

    state = torch.load(folder.weights_file, weights_only=True)
    model = build_network(NETWORK, SE, in_channels=1, classes=10, resolution=8)
    model.load_state_dict(state)
    test = load_data(spec().data, None).test
    loader = test.loader(EpochSampler(len(test), seed=None, batch_size=128), None, torch.device("cpu"), 0)
    predictions, _ = evaluate(model, loader, "fp32")
    recorded = Predictions.from_file(folder.path / "predictions.npz")
    assert (predictions.wrong == recorded.wrong).all()

    folder.weights_file.unlink()
    assert folder.record() is not None, "a folder is whole without them"


def test_weights_of_an_earlier_run_do_not_stay_beside_a_new_record(tmp_path):
    _, folder = trained(tmp_path, spec(), keep_weights=True)
    folder.record_file.unlink()
    trained(tmp_path, spec())
    assert not folder.weights_file.exists()


def test_the_record_says_what_the_predictions_say(tmp_path):
    record, folder = trained(tmp_path, spec())
    predictions = Predictions.from_file(folder.path / "predictions.npz")
    assert len(predictions.wrong) == record.n_test == 768
    assert record.metrics.top1_err == pytest.approx(100 * predictions.wrong.mean())
    assert record.metrics.cross_entropy == pytest.approx(predictions.cross_entropy.astype(float).mean(), rel=1e-3)
    assert record.metrics.top5_err is None, "of ten classes five are no feat"
    assert record.metrics.top1_err < 70, "three epochs are enough to be far from the 90 % of chance"


def test_the_test_set_is_read_once_and_only_after_training(tmp_path, monkeypatch):
    data = load_data(spec().data, None)
    read_at = []
    build = type(data.test).loader

    def watched(split, *arguments):
        if len(split) == len(data.test):
            checkpoint = torch.load(tmp_path / spec().run_id / "last.ckpt", weights_only=True)
            read_at.append(len(checkpoint["curve"]))
        return build(split, *arguments)

    monkeypatch.setattr(type(data.test), "loader", watched)
    trained(tmp_path, spec())
    assert read_at == [RECIPE.epochs]


def test_a_loss_that_is_no_number_is_a_result_called_diverged(tmp_path):
    record, folder = trained(tmp_path, spec(recipe=changed(lr=1e30)))
    assert record.status == "diverged"
    assert record.metrics is None
    assert not (folder.path / "predictions.npz").exists()
    assert not folder.checkpoint_file.exists()


@pytest.mark.parametrize(
    ("fields", "devices", "words"),
    [
        ({"batch_size": 930}, 1, ["recipe.batch_size = 930", "929 training images"]),
        ({"batch_size": 33}, 2, ["recipe.batch_size = 33", "2 devices"]),
        ({"augmentation": {"resized_crop": True}}, 1, ["resized_crop", "digits", 'data.dataset = "folder"']),
        (
            {"batch_size": 2, "augmentation": {"mix": ("cutmix",)}},
            2,
            ["mix = ['cutmix']", "recipe.batch_size = 2", "each of 2 devices a single one", "recipe.batch_size=4"],
        ),
    ],
)
def test_a_recipe_that_does_not_fit_the_images_is_refused_before_training(tmp_path, fields, devices, words):
    with pytest.raises(UserError) as caught:
        trained(tmp_path, spec(recipe=changed(**fields)), devices=devices)
    assert all(word in str(caught.value) for word in words)


def test_no_better_than_always_guessing_is_a_result_called_diverged(tmp_path):
    """One epoch at a rate of nothing leaves the random classifier that initialisation makes."""
    record, _ = trained(tmp_path, spec(recipe=changed(lr=1e-12, epochs=2)))
    assert record.status == "diverged"


def test_a_run_on_other_images_than_its_study_is_refused(tmp_path):
    with pytest.raises(UserError, match="images of digits changed"):
        trained(tmp_path, spec(), data_fingerprint="another")


def test_a_damaged_checkpoint_is_thrown_away_and_the_run_goes_on_from_the_one_before(tmp_path, interrupt_after):
    _, whole = trained(tmp_path / "whole", spec())
    interrupt_after(epoch=2)
    with pytest.raises(CutOffError):
        trained(tmp_path / "cut", spec())
    checkpoint = RunFolder(tmp_path / "cut" / spec().run_id).checkpoint_file
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1000])
    record, again = trained(tmp_path / "cut", spec())
    assert record.provenance.resumed_at_epoch == 1
    assert outcome(again) == outcome(whole)


def test_a_run_is_not_continued_in_another_way_than_it_was_begun(tmp_path, interrupt_after):
    interrupt_after(epoch=2)
    with pytest.raises(CutOffError):
        trained(tmp_path, spec())
    with pytest.raises(UserError, match="begun with devices = 1 and would go on with 2"):
        trained(tmp_path, spec(), devices=2)
    with pytest.raises(UserError, match=r"begun with optimisations = \(\) and would go on with \('matrix-product',\)"):
        trained(tmp_path, spec(), optimisations=("matrix-product",))


def test_the_time_of_all_tries_is_recorded(tmp_path, interrupt_after, monkeypatch):
    interrupt_after(epoch=2)
    with pytest.raises(CutOffError):
        trained(tmp_path, spec())
    saved = torch.load(RunFolder(tmp_path / spec().run_id).checkpoint_file, weights_only=True)["history"]
    record, _ = trained(tmp_path, spec())
    assert record.provenance.started == saved["started"]
    assert record.provenance.wall_s > saved["wall_s"]


def test_bf16_changes_the_run_but_not_what_it_learns(tmp_path):
    exact, _ = trained(tmp_path, spec())
    rough, _ = trained(tmp_path, spec(precision="bf16"))
    assert rough.provenance.precision == "bf16"
    assert exact.run_id != rough.run_id
    assert abs(rough.metrics.top1_err - exact.metrics.top1_err) < 15


@pytest.mark.parametrize(
    ("able", "precision"),
    [({}, "fp32"), ({"avx512_f": True}, "fp32"), ({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16")],
)
def test_auto_precision_is_bf16_on_processors_that_compute_in_it(able, precision, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert resolve_precision("auto", "cpu") == precision
    assert resolve_precision("fp32", "cpu") == "fp32", "what is asked for is done"
    assert resolve_precision("auto", "mps") == "fp32"


def parameters_kept(tmp_path, monkeypatch, what: RunSpec) -> list[str]:
    """Names of the parameters that have their initial values after the training."""
    request = RunRequest(spec=what, folder=RunFolder(tmp_path / what.run_id))
    module = AblationModule.of_run(what, in_channels=1, num_classes=10)
    start = {name: value.clone() for name, value in module.model.named_parameters()}
    kept = []
    evaluate = train.evaluate

    def compare(model, *arguments):
        kept.extend(name for name, value in model.named_parameters() if torch.equal(value, start[name]))
        return evaluate(model, *arguments)

    monkeypatch.setattr(train, "evaluate", compare)
    train_run(request)
    return kept


@pytest.mark.parametrize("gate", ["sigmoid", "none"])
def test_every_parameter_is_trained(tmp_path, monkeypatch, gate):
    """A block that is built but not wired in would keep its weights (but for the decay, switched off here)."""
    what = spec(Variant(se=SEConfig(gate=gate)), recipe=changed(weight_decay=0.0, epochs=2))
    assert parameters_kept(tmp_path, monkeypatch, what) == []


class WeightsOfEachProcess(pl.Callback):
    """Leaves the weights that each process of a run ends with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: object) -> None:
        sums = pl_module.train_loss.metric_state.values()
        assert not any(value.is_shared() for value in sums), "both would add to the same number"

    def on_validation_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: object) -> None:
        statistics = {name: value.clone() for name, value in pl_module.model.named_buffers()}
        torch.save(statistics, self.folder / f"judged-by-{trainer.global_rank}.pt")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        weights = {name: value.detach() for name, value in pl_module.named_parameters()}
        torch.save(weights, self.folder / f"{trainer.global_rank}.pt")


def test_two_processes_share_a_run_and_what_they_learn(tmp_path, monkeypatch):
    def watched(request, precision, callbacks):
        return make_trainer(request, precision, [*callbacks, WeightsOfEachProcess(tmp_path)])

    recipe = changed(batch_size=64)
    alone, _ = trained(tmp_path / "one", spec(recipe=recipe))
    monkeypatch.setattr(train, "make_trainer", watched)
    shared, folder = trained(tmp_path / "two", spec(recipe=recipe), devices=2)
    assert shared.provenance.devices == 2
    assert (folder.path / "curve.csv").read_text().count("\n") == 1 + RECIPE.epochs
    # Each saw its own half of every batch: without a common gradient they would have gone apart at the first step.
    one, other = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert all(torch.equal(one[name], other[name]) for name in one)
    # And both halves of the validation part are judged by one network, the one that is saved.
    one, other = (torch.load(tmp_path / f"judged-by-{rank}.pt") for rank in (0, 1))
    assert one
    assert all(torch.equal(one[name], other[name]) for name in one)
    # Batch statistics are each process's own, so equal only in what is learnt.
    assert abs(shared.metrics.top1_err - alone.metrics.top1_err) < 15
