"""A peer of `bench_peers.py`: a search as one writes it with Lightning and Optuna.

    .venv/bin/python scripts/bench_peers_lightning.py JOB.json

`bench_peers.py` writes the job and starts this. Pictures, transforms and loaders are those of the
arm "folder" in `bench_peers_plain.py`. What Lightning does beyond training (a log, checkpoints, a
progress bar, a summary of the model) is switched off, as the other peers do none of it.
"""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from bench_peers_plain import Config, folder_loaders, read_job, run_study
from torch import Tensor, nn


class Classifier(lightning.LightningModule):
    """A network and how it is trained."""

    def __init__(self, network: nn.Module, config: Config) -> None:
        super().__init__()
        self.network = network
        self.config = config

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """The loss of one batch."""
        images, labels = batch
        return F.cross_entropy(self.network(images), labels)

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        """Counts what is right."""
        images, labels = batch
        right = (self.network(images).argmax(1) == labels).float().mean()
        self.log("val_accuracy", right, batch_size=len(labels))

    def configure_optimizers(self) -> dict[str, Any]:
        """As in the other peers."""
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=self.config["lr"], weight_decay=self.config["weight_decay"]
        )
        steps = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, int(steps))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


class Best(lightning.Callback):
    """The validation accuracy of the best epoch."""

    value = 0.0

    def on_validation_end(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        """Looks at what the epoch gave."""
        if not trainer.sanity_checking:
            self.value = max(self.value, float(trainer.callback_metrics["val_accuracy"]))


def main() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    job = read_job(sys.argv[1])

    def score(network: nn.Module, config: Config) -> float:
        best = Best()
        trainer = lightning.Trainer(
            max_epochs=job.epochs,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[best],
        )
        trainer.fit(Classifier(network, config), *folder_loaders(job, augment=config["augment"]))
        return best.value

    run_study(job, score)


if __name__ == "__main__":
    main()
