"""The thresholds of verdicts on layers, and why they have these values.

They were set on five healthy networks (``tests/integration/test_healthy_nets.py``: convolutions on
images, an embedding bag on texts, a network for tables, a small decoder, and an MLP in a plain
loop), before any fault was planted in a test, and have not changed since. "Seen" is the most
extreme value of these networks, over two or three seeds, that lasted for ``LEAST_STEPS`` watched
steps.

Changed after faults had been planted: the distance of equal units became 1e-4 (1e-2 before:
untrained units of two inputs were "duplicated"), and ``MOST_NEW_ROWS`` replaces the condition that
not a single further row of an embedding is used.
"""

from __future__ import annotations

from collections.abc import Mapping

LEAST_STEPS = 3
"""Watched steps in a row that a fault must last: a single step is noise."""

LEAST_VALUES = 32
"""Values of a unit, over samples and positions, before it is called dead or saturated: of a few
samples many healthy units are 0."""

LEAST_STEPS_OF_EQUAL = 8
"""The same for equal units: encodings of numbers with equal first weights differ after 5 steps."""

THRESHOLDS: Mapping[str, tuple[float, bool]] = {
    # Share of values that are NaN or infinite: none is right. Seen: 0.
    "not finite": (1e-9, True),
    # Largest norm of an update, relative to the first weights. Seen: 0.14 (the head of a network
    # for tables), else at most 0.08. A learning rate of 100 times that of the MLP gives about 1.
    "large updates": (0.5, True),
    # Root mean square of an input. Seen: 1.05. Pixels from 0 to 255 have about 130.
    "input scale": (20.0, True),
    # Root mean square of outputs, relative to that of the inputs (at least 1). Seen: 7.2 (a
    # convolution with initial weights for ReLU before a norm layer).
    "exploding": (50.0, True),
    # Root mean square of outputs, relative to the inputs of the first layer. Seen: 7.3.
    "growing": (100.0, True),
    # Share of the mean square that differs between samples. Seen: 3e-4 (the head of a text
    # classifier in its first steps). 1e-5 is a difference of 0.3% of the size of the outputs.
    "lost signal": (1e-5, False),
    # Share of units that are 0 in all of the last watched steps. Seen: 0.06 (4 of 64 units).
    "dead": (0.3, True),
    # Share of units at a bound of sigmoid or tanh for 95% of the samples. Seen: none, as the five
    # networks have none inside. Half of the units is chosen so that gates may be open.
    "saturated": (0.5, True),
    # Norm of the gradient of a layer's outputs per sample, relative to the largest one after it.
    # Seen: 0.004 (a norm layer in a decoder).
    "vanishing": (1e-4, False),
    # Whether a weight does not train; not a matter of degree.
    "frozen": (1.0, True),
    # Number of units that equal another one for 256 rows of several values each. Seen: 0
    # after 5 steps, apart from layers that start at zero (left out).
    "duplicated": (1.0, True),
    # Share of the weights that the most attended position has in every head. Seen: 0.01.
    "one position": (0.9, True),
    # Entropy of the weights of a query, of 1. Seen: 0.88; translation models that have learned
    # which words belong together have less.
    "no entropy": (0.02, False),
    # Share of rows of an embedding without any update. Seen: 0.56 (hashed n-grams of a text
    # classifier, after all texts were read several times).
    "unused rows": (0.75, True),
}
"""Threshold by kind of fault, and whether values at or above it are a fault, else at or below."""

FROZEN_ON_PURPOSE = 0.5
"""Share of frozen parameters above which freezing is intended: a pretrained body, or adapters."""

LEAST_STEPS_OF_ROWS = 6
"""Watched steps before rows of an embedding are called unused, see ``verdicts``."""

MOST_NEW_ROWS = 0.1
"""Largest share by which the used rows of an embedding become more in the second half of the steps,
if the unused ones are to stay so: rare tokens of a small vocabulary come late."""

LEAST_UNUSED_ROWS = 16
"""Fewer unused rows are special tokens, or the category of missing values."""
