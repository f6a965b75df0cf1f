"""Tell positive from negative reviews of films.

Defaults: a fifth of train for validation, words of spaCy that occur three times, batches of 64,
Adam, one cycle.
"""

from fastai.text.all import *

dls = TextDataLoaders.from_csv("reviews", "train.csv")
model = nn.Sequential(nn.EmbeddingBag(len(dls.vocab[0]), 64, padding_idx=1), nn.Linear(64, 2))
learn = Learner(dls, model, metrics=accuracy)
learn.fit_one_cycle(5, 0.01)
test = dls.test_dl(pd.read_csv("reviews/test.csv"), with_labels=True)
print(learn.validate(dl=test)[1])
