"""Translate captions from English to German with attention.

Defaults: a tenth of train for validation, words as tokens, a recurrent model with additive
attention, teacher forcing, AdamW with one cycle of the learning rate, beam search; learner.plan
lists them.
"""

from flambeau import Learner
from flambeau_text import TranslationData

test = "captions/test.en", "captions/test.de"
data = TranslationData.from_files("captions/train.en", "captions/train.de", test=test)
learner = Learner(data)
learner.fit(6)
print(learner.evaluate("test")["bleu"])
