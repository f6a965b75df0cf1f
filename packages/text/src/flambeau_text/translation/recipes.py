"""The defaults of translation in one table."""

from __future__ import annotations

LEARNING_RATES = {"rnn": 3e-3, "transformer": 2e-3}
"""Peak rates under AdamW and one-cycle, by architecture.

The recurrent model's: on Multi30k (English to German, lower case) BLEU 25.6 on val, greedy, in the
second of three epochs. The Transformer's is the usual one for its size; no others
were tried.
"""

TRANSFORMER_PAIRS = 100_000
"""Train pairs from which on an accelerator trains a Transformer.

On the 29,000 of Multi30k the recurrent model reached 39.0 BLEU in 96 s, the Transformer 37.9 in
301 s (one H200, both at once, ``docs/benchmarks/2026-11-multi30k.md``). The number itself is a
guess: larger sets have not been measured.
"""

BF16_GAINS = {
    "rnn": "1.6× a training step on an AVX512-bf16 CPU (vocabulary 8,000, 128 pairs a batch)",
    "transformer": "1.7× a training step on an AVX512-bf16 CPU (vocabulary 8,000, 128 pairs)",
}
"""What bf16 gained, in words, by architecture."""

PIECES = ((1_000_000, 32_000), (150_000, 16_000), (20_000, 8_000), (5_000, 4_000), (0, 1_000))
"""Pieces of a vocabulary by the least number of train pairs."""

BATCH_PAIRS = ((100_000, 256), (10_000, 128), (2_000, 64), (500, 32), (0, 16))
"""Average pairs of a batch by the least number of train pairs."""

DROPOUT = ((1_000_000, 0.1), (100_000, 0.2), (0, 0.3))
"""Dropout by the least number of train pairs."""

STEPS_WANTED = {"word": 1_500, "text": 6_000}
"""Optimizer steps of a run: made or closed vocabularies, and running text."""

FEWEST_EPOCHS, MOST_EPOCHS = 5, 60
