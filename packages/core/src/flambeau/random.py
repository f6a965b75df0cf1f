"""Random numbers that are computed from a seed, a purpose and counters (epoch, sample).

Inside ``model.forward`` random numbers come from torch's global generator (dropout). All other
random numbers come from this module and are a pure function of (run seed, purpose, counters). They
do not depend on how many numbers were drawn before, so a resumed run, another number of workers or
another rank gets the same numbers.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from flambeau.checked_arguments import checked_seed

_GAMMA = -7046029254386353131  # 0x9E3779B97F4A7C15 as int64, the increment of splitmix64
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def key(seed: int, purpose: str, *counters: int) -> int:
    """Return a 63-bit pseudorandom integer that depends only on the arguments.

    Raises:
        ArgumentError: The seed is not a whole number: 3.0 or "3" would not be the seed 3.

    >>> key(0, "shuffle", 3) == key(0, "shuffle", 3) != key(0, "shuffle", 4)
    True
    """
    if type(seed) is not int:
        seed = checked_seed(seed)
    text = "/".join([str(seed), purpose, *map(str, counters)])
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(seed: int, purpose: str, *counters: int) -> torch.Generator:
    """Return a CPU generator seeded with ``key(seed, purpose, *counters)``."""
    return torch.Generator().manual_seed(key(seed, purpose, *counters))


def uniform(seed: int, purpose: str, epoch: int, indices: Tensor, draws: int) -> Tensor:
    """Return ``draws`` uniform numbers in [0, 1) per sample, independent of the sample's batch.

    Args:
        seed: Seed of the run.
        purpose: Use of the numbers, such as "flip"; different purposes are independent.
        epoch: The epoch; every epoch has different numbers.
        indices: Indices of the samples, int64, ``(batch,)``.
        draws: Numbers per sample.

    Returns:
        float32 ``(batch, draws)`` on the device of ``indices``.

    Source:
        splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014)
        used as a hash of (key, sample, draw); the upper 24 bits are converted to a float.
    """
    base = key(seed, purpose, epoch)
    columns = torch.arange(draws, device=indices.device, dtype=torch.int64)
    # Two rounds: the first decorrelates neighbouring samples, the second the draws of a sample.
    rows = _splitmix(indices.to(torch.int64) * _GAMMA + base)
    mixed = _splitmix(rows.unsqueeze(1) + (columns + 1) * _GAMMA)
    return ((mixed >> 40) & 0xFFFFFF).to(torch.float32) / float(1 << 24)


def _splitmix(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    return x ^ _shift_right(x, 31)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    # torch shifts int64 arithmetically; the mask gives the logical shift of splitmix64.
    return (x >> bits) & ((1 << (64 - bits)) - 1)
