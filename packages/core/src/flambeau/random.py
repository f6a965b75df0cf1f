"""Random numbers keyed by what they are for.

Inside ``model.forward`` torch's global generator draws (dropout). Every other draw comes from
here and is a pure function of (run seed, purpose, counters): nothing depends on how many numbers
were drawn before, so a resumed run, another number of workers or another rank sees the same ones.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as int64, the increment of splitmix64
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def key(seed: int, purpose: str, *counters: int) -> int:
    """A 63-bit number that is fixed by its arguments and looks random.

    >>> key(0, "shuffle", 3) == key(0, "shuffle", 3) != key(0, "shuffle", 4)
    True
    """
    text = "/".join([str(seed), purpose, *map(str, counters)])
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(seed: int, purpose: str, *counters: int) -> torch.Generator:
    """A CPU generator that starts at ``key(seed, purpose, *counters)``."""
    return torch.Generator().manual_seed(key(seed, purpose, *counters))


def uniform(seed: int, purpose: str, epoch: int, indices: Tensor, draws: int) -> Tensor:
    """``draws`` uniform numbers in [0, 1) for each sample, whatever batch the sample is in.

    Args:
        seed: The run's seed.
        purpose: What the numbers are for; two purposes are independent.
        epoch: The epoch; every epoch draws anew.
        indices: Sample numbers, int64, ``(batch,)``.
        draws: How many numbers a sample needs.

    Returns:
        float32 ``(batch, draws)`` on the device of ``indices``.

    Source:
        splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014)
        as a hash of (key, sample, draw); the upper 24 bits become the float.
    """
    base = key(seed, purpose, epoch)
    columns = torch.arange(draws, device=indices.device, dtype=torch.int64)
    # Two rounds: the first decorrelates neighbouring samples, the second the draws of one sample.
    rows = _splitmix(indices.to(torch.int64) * _GOLDEN + base)
    mixed = _splitmix(rows.unsqueeze(1) + (columns + 1) * _GOLDEN)
    return ((mixed >> 40) & 0xFFFFFF).to(torch.float32) / float(1 << 24)


def _splitmix(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    return x ^ _shift_right(x, 31)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    # int64 shifts right with the sign; the mask makes it the logical shift that splitmix64 needs.
    return (x >> bits) & ((1 << (64 - bits)) - 1)
