"""The task of ``peers-vision`` for libraries on torch: a small ResNet on Fashion-MNIST."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from flambeau_bench.side.fashion_arrays import MEAN, STD, FashionArrays, computes_in_bf16
from flambeau_bench.side.protocol import Facts, Job
from flambeau_bench.side.small_resnet import SmallResNet
from flambeau_bench.side.torch_witness import (
    Witness,
    devices_of,
    parameter_types,
    torch_settings,
    weights_hash,
)

_EVALUATED_AT_ONCE = 1_000


class FashionTask:
    """Model and images of one run.

    Args:
        job: Its counts have "train" and "valid" (numbers of images) and "batch_size"; its row is
            "fp32" where all sides must train in fp32.
        request: "epochs", "lr" (the peak, where a side has a schedule), and "held_out": evaluate on
            the last of the train images instead of the test images.

    Attributes:
        model: The untrained network; the library trains this object.
        train_images: uint8 (n, 28, 28).
        train_labels: int64 (n,).
        valid_images: The images of the evaluations, likewise.
        valid_labels: Their labels.
        epochs: Epochs to train.
        lr: Learning rate.
        batch_size: Images in a batch.
        fast: Whether the documented fast setting is asked for.
        fp32: Whether the precision must be fp32.
        seed: Determines the weights; the sides shuffle in their own ways.
    """

    def __init__(self, job: Job, request: Mapping[str, Any]) -> None:
        if job.threads:
            torch.set_num_threads(job.threads)
        self.fast, self.fp32 = job.setting == "fast", job.row == "fp32"
        self.epochs, self.lr = int(request["epochs"]), float(request["lr"])
        self.batch_size = job.counts["batch_size"]
        self.seed = int(request.get("seed", job.seed))
        arrays = FashionArrays(job, held_out=bool(request.get("held_out")))
        self.train_images, self.train_labels = arrays.train_images, arrays.train_labels
        self.valid_images, self.valid_labels = arrays.valid_images, arrays.valid_labels
        torch.manual_seed(self.seed)
        self.model = SmallResNet()
        self._init_hash = weights_hash(self.model)
        self._witness = Witness(self.model, hashes=False)

    @property
    def bf16(self) -> bool:
        """Whether a fast setting should use bf16: this processor computes in it."""
        return self.fast and not self.fp32 and computes_in_bf16()

    def facts(self) -> Facts:
        """Return what was done, with the accuracy in fp32 of the final weights."""
        witness = self._witness
        witness.close()
        settings = torch_settings()
        evaluated = witness.final_evaluations > 0
        return Facts(
            steps=witness.steps,
            samples=witness.samples,
            init_hash=self._init_hash,
            order_hash="",
            weights_hash=weights_hash(self.model),
            precision=", ".join(sorted(parameter_types(self.model) | witness.types)),
            final_evaluations=witness.final_evaluations,
            seed=self.seed,
            quality={"accuracy": self._accuracy()},
            settings={
                **settings,
                "batch_size": self.batch_size,
                "device": devices_of(self.model.parameters()),
                "evaluated last": evaluated,
            },
            notes=f"{self.epochs} epochs, lr {self.lr:g}",
        )

    @torch.no_grad()
    def _accuracy(self) -> float:
        self.model.eval()
        device = next(self.model.parameters()).device
        correct = 0
        for start in range(0, len(self.valid_images), _EVALUATED_AT_ONCE):
            part = slice(start, start + _EVALUATED_AT_ONCE)
            x = normalised(torch.from_numpy(self.valid_images[part]).to(device))
            predicted = self.model(x).argmax(1).cpu().numpy()
            correct += int((predicted == self.valid_labels[part]).sum())
        return correct / len(self.valid_images)


def normalised(images: Tensor) -> Tensor:
    """Return uint8 images (n, 28, 28) as normalised floats (n, 1, 28, 28)."""
    return images.unsqueeze(-3).float().div_(255.0).sub_(MEAN).div_(STD)


class FashionImages(Dataset[tuple[Tensor, int]]):
    """The data set that a user writes: an image and a label per call, normalised."""

    def __init__(self, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> None:
        self._images, self._labels = images, labels

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return normalised(torch.from_numpy(self._images[index])), int(self._labels[index])
