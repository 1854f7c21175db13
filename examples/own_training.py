"""Train the suite's module under your own Trainer: a moving average of the weights, accumulated batches, trainer.test.

python examples/own_training.py
"""

import pytorch_lightning as pl
from pytorch_lightning.callbacks import WeightAveraging
from torch.optim.swa_utils import get_ema_avg_fn

from senet_ablate import AblationModule, ImageDataModule


def main(epochs: int = 3) -> dict[str, float]:
    """Train a small SE-ResNet-14 on scikit-learn's digits and return its test errors in percent."""
    data = ImageDataModule("digits", batch_size=32)
    module = AblationModule(
        backbone="resnet14",
        squeeze="max",
        gate="sigmoid",
        reduction=8,
        stages="all",
        position="standard",
        num_classes=data.num_classes,
        in_channels=data.in_channels,
        width=16,
        stem="small",
        lr=0.05,
    )
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        accumulate_grad_batches=2,
        callbacks=[WeightAveraging(avg_fn=get_ema_avg_fn(0.9))],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, data)
    (errors,) = trainer.test(module, data, verbose=False)
    return dict(errors)


if __name__ == "__main__":
    for name, value in main().items():
        print(f"{name}: {value:.2f}")
