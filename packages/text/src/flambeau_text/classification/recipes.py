"""The numbers from which the plan's rules for text classification compute their defaults."""

from __future__ import annotations

LEARNING_RATES = {"bag": 1e-2}
"""Peak learning rates with AdamW and the one-cycle schedule, by architecture.

Measured with 1,000 reviews of IMDb in 20 epochs, accuracy on 4,000 others at the epoch with the
lowest loss: .816 at 1e-2, .8205 at 3e-2; the lower one, because more texts have more steps. Nothing
was measured for "awd_lstm" and "transformer".
"""

BAG_BATCH_SIZES = ((409_600, 1024), (102_400, 512), (10_000, 256), (4_000, 128), (2_000, 64))
"""Texts of a batch of a bag by minimum number of train texts, as (minimum, texts); with fewer texts
those of core. On 22,500 reviews of IMDb, 6 epochs with 256 gave .898 in 109 CPU-seconds; 64 were
much slower."""

TARGET_STEPS = {"bag": 500, "awd_lstm": 1_000, "transformer": 1_000}
"""Number of optimizer steps of a run by architecture, if it has `MIN_EPOCHS` to `MAX_EPOCHS`.

With a bag the validation loss no longer falls: 900 sentences of ``flambeau demo text`` have their
lowest loss (.422) at the end of 18 epochs, 1,000 reviews of IMDb .400 in epoch 10 of 16 and .401 at
the end, 200 reviews .561 in epoch 7 of 20 and .566 at the end; core's 50 epochs overfit. Those of
"awd_lstm" and "transformer" are not measured.
"""

MEASURED_STEPS = {
    "bag": "sufficed for a bag with 200 to 1,000 texts, which 50 epochs overfit",
}
"""How `TARGET_STEPS` were measured, as text for the plan, by architecture."""

MIN_EPOCHS, MAX_EPOCHS = 3, 20

BF16_GAINS: dict[str, str] = {}
"""Measured speed-up with bf16, as text for the plan, by architecture."""

SUBWORD_VOCAB_SIZES = ((5_000_000, 16_000), (500_000, 8_000), (50_000, 4_000), (0, 1_000))
"""Subword vocabulary size by minimum number of train words, as (minimum, size)."""

WORD_VOCAB_SIZE = 60_000

LENGTH_LIMITS = {"bag": 20_000, "awd_lstm": 1_400, "transformer": 512}
"""Most tokens of a text by architecture: a bag costs little per token, a recurrent network as much
for each (1,400 tokens are the 20 chunks of ULMFiT), and attention more the longer the text."""

OTHER_LENGTH_LIMIT = 20_000

TOKENS_PER_WORD = {
    **{"word": 1.25, "bpe": 1.4, "unigram": 1.4},
    **{"huggingface": 1.4, "huggingface_encoder": 1.4, "backward": 1.25},
}
"""Approximate tokens of a word, punctuation included, for the plan's estimate of lengths."""

BAG_WIDTHS = ((20_000, 64), (0, 32))
"""Width of the vectors of a bag by minimum number of train texts, as (minimum, width)."""

BAG_BUCKETS = ((1_000_000, 131_072), (100_000, 65_536), (0, 16_384))
"""Vectors for pairs of tokens by minimum number of train words, as (minimum, vectors)."""

AWD_SIZES = (
    (1_000_000, {"embedding_dim": 256, "hidden_size": 512, "num_layers": 2}),
    (0, {"embedding_dim": 128, "hidden_size": 256, "num_layers": 2}),
)
"""Sizes of an AWD-LSTM by minimum number of train words, as (minimum, sizes)."""

AWD_DROPOUT_FACTOR = 0.5
"""Factor on the published dropout probabilities of the language model, as in ULMFiT's code."""

AWD_FEWEST_TEXTS = 20_000
"""Train texts from which "awd_lstm" is the default on an accelerator. On a CPU it is never the
default: a step with 32 texts of 300 tokens took 498 CPU-milliseconds on one core, and 13 with a
bag."""
