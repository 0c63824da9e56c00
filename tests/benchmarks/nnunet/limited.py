"""A trainer of nnU-Net that ends after given minutes: its own, but that the rate falls over time and not over epochs.

Found by nnU-Net through the environment variable `nnUNet_extTrainer`; `MINUTES` says how long.
"""

import os
import time

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class LimitedTrainer(nnUNetTrainer):
    """One batch an epoch, as a batch takes a minute on two cores; no validation, which is not what is compared."""

    def __init__(self, plans, configuration, fold, dataset_json, device):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_iterations_per_epoch = 1
        self.seconds = 60 * float(os.environ["MINUTES"])

    def run_training(self):
        """Trains until the time is over; data loading and augmentation count, as on our side."""
        self.on_train_start()
        start = time.monotonic()
        steps = 0
        while (left := 1 - (time.monotonic() - start) / self.seconds) > 0:
            self.network.train()
            rate = self.initial_lr * left**0.9
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            loss = self.train_step(next(self.dataloader_train))["loss"]
            steps += 1
            self.print_to_log_file(f"step {steps}, rate {rate:.5f}, loss {loss:.4f}")
        self.print_to_log_file(
            f"{steps} steps of {self.batch_size} patches of {self.configuration_manager.patch_size}, "
            f"{torch.get_num_threads()} threads, {(time.monotonic() - start) / 60:.1f} minutes"
        )
        self.save_checkpoint(os.path.join(self.output_folder, "checkpoint_final.pth"))
        self.on_train_end()
