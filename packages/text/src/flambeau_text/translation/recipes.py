"""The numbers from which the plan's rules for translation compute their defaults."""

from __future__ import annotations

LEARNING_RATES = {"rnn": 3e-3, "transformer": 2e-3}
"""Peak learning rates with AdamW and the one-cycle schedule, by architecture.

With its rate the recurrent model reached 25.6 BLEU on the validation part of Multi30k (English to
German, lower case, greedy search) after the second of three epochs. The rate of the Transformer is
usual for its size; no other rate was tried.
"""

TRANSFORMER_PAIRS = 100_000
"""Number of train pairs from which a Transformer is the default on an accelerator.

On the 29,000 pairs of Multi30k the recurrent model reached 39.0 BLEU in 96 s and the Transformer
37.9 in 301 s (one H200, both at once, ``docs/benchmarks/2026-11-multi30k.md``). The threshold
itself is an estimate: larger data sets have not been measured.
"""

BF16_GAINS = {
    "rnn": "1.6× per training step on an AVX512-bf16 CPU (vocabulary 8,000, 128 pairs per batch)",
    "transformer": "1.7× per training step on an AVX512-bf16 CPU (vocabulary 8,000, 128 pairs)",
}
"""Measured speed-up with bf16, as text for the plan, by architecture."""

SUBWORD_VOCAB_SIZES = (
    (1_000_000, 32_000),
    (150_000, 16_000),
    (20_000, 8_000),
    (5_000, 4_000),
    (0, 1_000),
)
"""Subword vocabulary size by minimum number of train pairs, as (minimum, size)."""

BATCH_SIZES = ((100_000, 256), (10_000, 128), (2_000, 64), (500, 32), (0, 16))
"""Batch size by minimum number of train pairs, as (minimum, size).

A batch has the tokens of this number of average pairs.
"""

DROPOUT = ((1_000_000, 0.1), (100_000, 0.2), (0, 0.3))
"""Dropout probability by minimum number of train pairs, as (minimum, probability)."""

TARGET_STEPS = {"word": 1_500, "text": 6_000}
"""Target number of optimizer steps of a run: with the word tokenizer, and with others ("text")."""

MIN_EPOCHS, MAX_EPOCHS = 5, 60
