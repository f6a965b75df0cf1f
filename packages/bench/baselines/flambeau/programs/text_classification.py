"""Tell positive from negative reviews of films.

Defaults: the columns of texts and labels, a fifth of train for validation, words as tokens, the
network bag, AdamW with one cycle of the learning rate, batch size, epochs; learner.plan lists
them.
"""

from flambeau import Learner
from flambeau_text import TextData

learner = Learner(TextData.from_csv("reviews/train.csv", test="reviews/test.csv"))
learner.fit()
print(learner.evaluate("test")["accuracy"])
