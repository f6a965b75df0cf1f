"""The numbers from which the plan's rules for language models compute their defaults."""

from __future__ import annotations

LEARNING_RATES = {"awd_lstm": 1e-2, "decoder": 3e-3}
"""Peak learning rates with AdamW and the one-cycle schedule, by architecture.

Measured on ``flambeau demo language`` with 6 epochs of 62 steps, in bits per byte of validation:
AWD-LSTM 2.39, 2.11, 1.81, 1.72 at 1e-3, 3e-3, 1e-2, 3e-2; decoder 1.83, 1.68 at 1e-3, 3e-3. The
rate of the AWD-LSTM is below the best one, because longer runs and larger networks need lower
rates.
"""

BF16_GAINS: dict[str, str] = {}
"""Measured speed-up with bf16, as text for the plan, by architecture."""

SUBWORD_VOCAB_SIZES = (
    (50_000_000, 32_000),
    (5_000_000, 16_000),
    (500_000, 8_000),
    (100_000, 4_000),
    (20_000, 2_000),
    (0, 500),
)
"""Subword vocabulary size by minimum number of train words, as (minimum, size)."""

SIZES_ON_CPU = (
    (20_000_000, {"embedding_dim": 400, "hidden_size": 1150, "num_layers": 3}),
    (1_000_000, {"embedding_dim": 256, "hidden_size": 512, "num_layers": 2}),
    (0, {"embedding_dim": 128, "hidden_size": 256, "num_layers": 2}),
)
"""Sizes of an AWD-LSTM by minimum number of train words, as (minimum, sizes). On a CPU the
published size would take hours per million words; an accelerator uses it from 300,000 words on."""

PUBLISHED_WORDS = 300_000

DECODER_DEPTHS = ((20_000_000, 8), (1_000_000, 5), (100_000, 4), (0, 3))
"""Depth of a decoder by minimum number of train words, as (minimum, depth)."""

DECODER_DROPOUTS = ((20_000_000, 0.0), (1_000_000, 0.1), (0, 0.2))
"""Dropout probability of a decoder by minimum number of train words, as (minimum, probability)."""

DROPOUT_FACTORS = ((20_000_000, 0.3), (1_000_000, 0.5), (100_000, 0.7), (0, 0.5))
"""Factor on the published dropout probabilities by minimum number of train words.

The published probabilities are for hundreds of epochs with a larger network.
"""

BATCH_SIZES = ((5_000_000, 64), (200_000, 32), (20_000, 16), (0, 8))
"""Rows of a batch by minimum number of train words, as (minimum, rows)."""

TARGET_STEPS = 4_000
"""Target number of optimizer steps of a run."""

MIN_EPOCHS, MAX_EPOCHS = 1, 40
