"""The Lightning module under a user's own Trainer: callbacks, accumulation, an own DataLoader, test and resume."""

import copy
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from senet_ablate.blocks.se import SqueezeExcitation
from senet_ablate.data.module import ImageDataModule
from senet_ablate.errors import UserError
from senet_ablate.models.build import build_model
from senet_ablate.models.pretrained import read_weights
from senet_ablate.models.sites import inserts
from senet_ablate.spec.network import SEConfig
from senet_ablate.spec.protocol import Augmentation
from senet_ablate.training.checkpoint import read_checkpoint
from senet_ablate.training.module import AblationModule

SMALL = {"width": 16, "stem": "small", "in_channels": 1, "num_classes": 10}


def small(**settings):
    return AblationModule("resnet14", **SMALL, **settings)


def trainer(tmp_path, **settings):
    settings = {"max_epochs": 1, "limit_train_batches": 4, "limit_val_batches": 1} | settings
    return pl.Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )


@pytest.fixture(autouse=True)
def lightnings_advice():
    """Lightning warns of few loading processes; the suite's own code must warn of nothing."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning")
        yield


class Steps(pl.Callback):
    """The rate and the weights of the classifier at each optimiser step."""

    def __init__(self):
        self.rates, self.weights = [], []

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.rates.append(optimizer.param_groups[0]["lr"])
        self.weights.append(module.model.fc.weight.detach().clone())


class MovingAverage(pl.Callback):
    """The average that an EMA callback of a user's would keep."""

    def on_fit_start(self, trainer, module):
        self.average = copy.deepcopy(module.model)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        for mine, theirs in zip(self.average.parameters(), module.model.parameters(), strict=True):
            mine.data.lerp_(theirs.data, 0.5)


def test_the_rate_is_a_cosine_over_the_optimiser_steps(tmp_path):
    steps = Steps()
    trainer(tmp_path, max_epochs=2, callbacks=[steps]).fit(small(lr=0.1), ImageDataModule(batch_size=64))
    by_hand = [0.1 * (1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)]
    assert steps.rates == pytest.approx(by_hand)


def test_accumulated_batches_make_one_step(tmp_path):
    steps = Steps()
    trainer(tmp_path, accumulate_grad_batches=2, callbacks=[steps]).fit(small(lr=0.1), ImageDataModule(batch_size=64))
    assert steps.rates == pytest.approx([0.1, 0.05])


def test_a_moving_average_of_a_callback_lags_behind_what_is_trained(tmp_path):
    module, average = small(), MovingAverage()
    first = module.model.fc.weight.detach().clone()
    trainer(tmp_path, callbacks=[average]).fit(module, ImageDataModule(batch_size=64))
    kept, last = average.average.fc.weight, module.model.fc.weight
    assert 0 < (kept - last).norm() < (first - last).norm()


def test_callbacks_that_monitor_the_validation_loss_find_it(tmp_path):
    module = small()
    best = pl.callbacks.ModelCheckpoint(tmp_path / "best", monitor="val_loss")
    stop = pl.callbacks.EarlyStopping(monitor="val_top1_err", patience=1, stopping_threshold=101)  # any epoch will do
    mine = trainer(tmp_path, max_epochs=5, callbacks=[best, stop])
    mine.fit(module, ImageDataModule(batch_size=64))
    assert len(module.curve) == 1
    assert float(best.best_model_score) == pytest.approx(module.curve[0].val_loss)
    (found,) = mine.validate(module, ImageDataModule(batch_size=64), verbose=False)
    assert 0 <= found["val_top1_err"] <= 100


def test_the_rate_stays_at_its_end_where_a_trainer_goes_on(tmp_path):
    steps = Steps()
    trainer(tmp_path, max_epochs=3, callbacks=[steps]).fit(small(epochs=2), ImageDataModule(batch_size=64))
    assert steps.rates[8:] == [pytest.approx(0.0)] * 4


def test_a_trainer_without_end_is_refused(tmp_path):
    with pytest.raises(ValueError, match="set its max_epochs"):
        trainer(tmp_path, max_epochs=-1).fit(small(), ImageDataModule(batch_size=64))


def test_settings_that_would_be_ignored_are_refused():
    with pytest.raises(ValueError, match="no placement"):
        build_model("resnet18", se=None, position="pre")
    with pytest.raises(TypeError, match="reduction"):
        SqueezeExcitation(64, SEConfig(), reduction=8)


def test_gradients_are_clipped(tmp_path):
    class Norm(pl.Callback):
        def __init__(self):
            self.norms = []

        def on_before_zero_grad(self, trainer, module, optimizer):
            grads = [value.grad for value in module.parameters() if value.grad is not None]
            if grads:
                self.norms.append(torch.stack([grad.norm() for grad in grads]).norm().item())

    norm = Norm()
    trainer(tmp_path, gradient_clip_val=0.01, callbacks=[norm]).fit(small(), ImageDataModule(batch_size=64))
    assert norm.norms
    assert max(norm.norms) <= 0.01 * (1 + 1e-4)


def test_one_step_of_training_is_sgd_by_hand(tmp_path):
    """Gradient and update computed by torch alone, on the same first batch."""
    data, steps = ImageDataModule(batch_size=64), Steps()
    module = small(lr=0.1, weight_decay=0.01)
    network = copy.deepcopy(module.model)
    mine = trainer(tmp_path, limit_train_batches=2, callbacks=[steps])
    mine.fit(module, data)
    images, labels = next(iter(data.train_dataloader()))  # epoch 0 was the last announced
    network.train()
    nn.functional.cross_entropy(network(images), labels).backward()
    weight = network.fc.weight
    expected = weight - 0.1 * (weight.grad + 0.01 * weight)
    assert torch.allclose(steps.weights[1], expected, atol=1e-6)


def test_the_loss_of_mixed_images_is_the_cross_entropy_of_their_shares(tmp_path):
    mix = Augmentation(mix=("mixup",))
    data, module = ImageDataModule(batch_size=64, augmentation=mix), small(label_smoothing=0.1, lr=1e-9)
    network = copy.deepcopy(module.model)
    mine = trainer(tmp_path, limit_train_batches=1)
    mine.fit(module, data)
    images, shares = next(iter(data.train_dataloader()))
    assert shares.shape == (64, 10)
    network.train()
    smoothed = 0.9 * shares + 0.1 / 10
    by_hand = -(smoothed * network(images).log_softmax(1)).sum(1).mean()
    assert module.curve[0].train_loss == pytest.approx(by_hand.item(), rel=1e-5)
    assert next(iter(data.val_dataloader()))[1].dtype == torch.int64, "validation images are as they are"


def test_a_trial_run_of_one_batch_goes_through_with_warmup(tmp_path):
    trainer(tmp_path, fast_dev_run=True).fit(small(warmup_epochs=3, epochs=10), ImageDataModule())


def test_an_own_loader_serves_as_well_as_a_data_module_and_needs_no_validation(tmp_path):
    images = torch.randn(64, 1, 8, 8)
    module = small()
    loader = DataLoader(TensorDataset(images, torch.arange(64) % 10), batch_size=16)
    trainer(tmp_path).fit(module, loader)
    assert math.isfinite(module.curve[0].train_loss)
    assert math.isnan(module.curve[0].val_loss), "there were no validation images"


def test_test_reports_the_errors_of_the_whole_part(tmp_path):
    module, data = small(), ImageDataModule(batch_size=64)
    (found,) = trainer(tmp_path).test(module, data, verbose=False)
    split = data.images.test
    module.eval()
    with torch.inference_mode():
        logits = torch.cat([module(images) for images, _ in data.test_dataloader()])
    wrong = 100 * (logits.argmax(1) != split.labels).double().mean()
    assert found["test_top1_err"] == pytest.approx(float(wrong), abs=1e-3)
    assert found["test_cross_entropy"] == pytest.approx(
        float(nn.functional.cross_entropy(logits, split.labels)), abs=1e-4
    )


def test_a_plain_checkpoint_of_lightning_resumes_to_the_bit(tmp_path):
    """Weights after two epochs, and after one, a checkpoint of Lightning's own, and another."""
    recipe = {"lr": 0.05, "schedule": "plateau", "patience": 1, "epochs": 3}
    whole = small(**recipe)
    trainer(tmp_path, max_epochs=3).fit(whole, ImageDataModule(batch_size=64))
    begun = small(**recipe)
    first = trainer(tmp_path / "first", max_epochs=2)
    first.fit(begun, ImageDataModule(batch_size=64))
    first.save_checkpoint(tmp_path / "two.ckpt")
    resumed = small(**recipe, seed=7)
    trainer(tmp_path / "then", max_epochs=3).fit(
        resumed, ImageDataModule(batch_size=64), ckpt_path=tmp_path / "two.ckpt", weights_only=True
    )
    assert resumed.curve == whole.curve
    state = whole.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in resumed.state_dict().items())
    loaded = AblationModule.load_from_checkpoint(tmp_path / "two.ckpt", weights_only=True)
    assert loaded.hparams["patience"] == 1
    assert torch.equal(loaded.model.fc.weight, begun.model.fc.weight)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"gate": "sigmoit"}, "sigmoid"), ({"backbone": "resnet15"}, "resnet14"), ({"position": "mid"}, "standard")],
)
def test_a_level_that_a_factor_does_not_have_is_refused_by_name(settings, words):
    with pytest.raises(ValueError, match=words):
        AblationModule(**settings)


def test_an_optimiser_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="sgd or adamw"):
        small(optimizer="lion")


def test_adamw_is_torchs(tmp_path):
    module = small(optimizer="adamw", lr=1e-3)
    mine = trainer(tmp_path)
    mine.fit(module, ImageDataModule(batch_size=64))
    assert type(mine.optimizers[0]) is torch.optim.AdamW


def test_pretrained_layers_take_their_own_step_and_new_ones_the_whole(tmp_path):
    # One step of plain SGD is the rate times the gradient, so two steps have the ratio of their rates.
    moved = []
    for backbone_lr in (0.0, 0.02):
        module = small(backbone_lr=backbone_lr, lr=0.1, momentum=0.0, weight_decay=0.0)
        before = {name: weight.detach().clone() for name, weight in module.model.named_parameters()}
        trainer(tmp_path, limit_train_batches=1, max_epochs=1).fit(module, ImageDataModule(batch_size=64))
        moved.append({name: weight.detach() - before[name] for name, weight in module.model.named_parameters()})
    whole, part = moved
    new = {name for name in whole if ".se." in name or name.startswith("fc.")}
    assert len(new) == 4 * 2 + 2
    for name, step in whole.items():
        torch.testing.assert_close(part[name], step if name in new else 0.2 * step, rtol=1e-2, atol=1e-6)


def test_images_need_a_trainer_and_a_folder_its_resolution():
    with pytest.raises(UserError, match="Trainer"):
        ImageDataModule().train_dataloader()
    with pytest.raises(UserError, match="resolution"):
        ImageDataModule("folder", path="x")


def test_a_network_from_plain_settings_has_the_blocks_that_they_name():
    model = build_model("resnet50", se={"gate": "tanh"}, stages=(3, 4), position="pre", num_classes=10)
    found = inserts(model)
    assert {name[:4] for name in found} == {"SE_3", "SE_4"}
    units = [f"layer{number}.{index}" for number, depth in ((2, 4), (3, 6)) for index in range(depth)]
    before_the_first = [(f"{unit}.conv1", "before", "tanh") for unit in units]
    assert [(each.site.module, each.site.side, each.block.config.gate) for each in found.values()] == before_the_first
    assert model.fc.out_features == 10
    assert not inserts(build_model("resnet18", se=None))


def test_a_checkpoint_and_weights_are_read_whatever_the_warning_filter_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library that begins to warn would else make every checkpoint a damaged one, which is removed."""
    path, load = tmp_path / "run" / "last.ckpt", torch.load
    path.parent.mkdir()
    torch.save({"conv1.weight": torch.ones(2)}, path)

    def warning(*args: Any, **kwargs: Any) -> Any:
        warnings.warn("deprecated", FutureWarning, stacklevel=2)
        return load(*args, **kwargs)

    monkeypatch.setattr(torch, "load", warning)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_checkpoint(path)["conv1.weight"].sum() == 2
        assert read_weights(path)["conv1.weight"].sum() == 2
