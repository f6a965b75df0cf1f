"""``loss-memory``: the peak memory of the token loss over a large vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flambeau_bench import fingerprint
from flambeau_bench.case import Case, Comparison, Criterion, Gate, Size
from flambeau_bench.measurement import Measurement
from flambeau_text.token_loss import token_loss

PLAIN, FLAMBEAU = "F.cross_entropy", "flambeau"

WIDTH = 256
_STATUS = Path("/proc/self/status")
EQUAL_WITHIN = 1e-5
"""Allowed relative difference of the loss and of the norms of its gradients, in fp32."""


class LossMemory(Case):
    """Loss and gradients of the output layer, once in a new process.

    The figure is the growth of the peak memory of the process (of the device on a GPU), which
    includes the gradients of features and weights.
    """

    name: ClassVar = "loss-memory"
    question: ClassVar = "How much memory does the loss over a large vocabulary need?"
    sizes: ClassVar = {
        "quick": Size("quick", {"tokens": 512, "words": 8_000}, pairs=1, floor_pairs=0),
        "cpu": Size("cpu", {"tokens": 2_240, "words": 32_000}, pairs=3, floor_pairs=0),
        "gpu": Size(
            "gpu", {"tokens": 8_192, "words": 32_000}, pairs=3, floor_pairs=0, device="cuda"
        ),
    }
    fresh: ClassVar = True

    def skip_reason(self, size: Size) -> str:
        missing = super().skip_reason(size)
        if not missing and size.device == "cpu" and not _STATUS.exists():
            return f"the peak memory of a process is read from {_STATUS}, which only Linux has"
        return missing

    def comparisons(self, size: Size) -> Sequence[Comparison]:
        limit = 0.5 if size.name != "quick" else None
        criteria = (
            Criterion("peak_mb", "ratio", "× the memory", limit),
            Criterion("peak_mb", "value", "MB"),
        )
        return [Comparison("fp32", PLAIN, FLAMBEAU, criteria)]

    def measure(self, comparison: Comparison, side: str, size: Size, pair: int) -> Measurement:
        device = torch.device(size.device)
        draws = torch.Generator().manual_seed(pair)
        output = nn.Linear(WIDTH, size["words"])
        with torch.no_grad():
            output.weight.copy_(0.05 * torch.randn(output.weight.shape, generator=draws))
            output.bias.zero_()
        output.to(device)
        features = torch.randn(size["tokens"], WIDTH, generator=draws).to(device).requires_grad_()
        targets = torch.randint(size["words"], (size["tokens"],), generator=draws).to(device)
        few = features[:8].detach().requires_grad_()
        _loss(side, output, few, targets[:8]).backward()  # kernels load their workspaces
        output.zero_grad()
        before = _peak_mb(device)
        loss = _loss(side, output, features, targets)
        loss.backward()
        peak = _peak_mb(device) - before
        gradients = [features.grad, output.weight.grad, output.bias.grad]
        norms = [float(each.norm()) for each in gradients if each is not None]
        return Measurement(
            {"peak_mb": peak},
            steps=1,
            samples=size["tokens"],
            init_hash=fingerprint.of_weights(output),
            order_hash=fingerprint.of_tensors([targets]),
            settings=fingerprint.machine_settings(),
            quality={str(i): value for i, value in enumerate([float(loss.detach()), *norms])},
        )

    def gate(
        self, comparison: Comparison, pairs: Sequence[tuple[Measurement, Measurement]]
    ) -> Gate:
        """Require equal losses and norms of the gradients."""
        largest = max(
            abs(float(b.quality[name]) / float(a.quality[name]) - 1.0)
            for a, b in pairs
            for name in a.quality
        )
        return Gate(
            largest <= EQUAL_WITHIN and all(len(b.quality) == 4 for _, b in pairs),
            f"loss and norms of the gradients differ by at most {largest:.1e} (allowed "
            f"{EQUAL_WITHIN:g})",
        )


def _loss(side: str, output: nn.Linear, features: Tensor, targets: Tensor) -> Tensor:
    if side == PLAIN:
        return F.cross_entropy(output(features), targets)
    mask = torch.ones_like(targets, dtype=torch.bool)
    total, _ = token_loss(output, features, targets, mask)
    return total / len(targets)


def _peak_mb(device: torch.device) -> float:
    """Return the peak memory so far: of the process, or of the device."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    # Not getrusage: its maximum includes that of the parent before this program started.
    [line] = [line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1e3
