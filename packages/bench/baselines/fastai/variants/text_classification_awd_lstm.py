"""Train an AWD-LSTM from published weights.

Shorter, but it needs published weights.
"""

from fastai.text.all import *

dls = TextDataLoaders.from_csv("reviews", "train.csv")
learn = text_classifier_learner(dls, AWD_LSTM, metrics=accuracy)
learn.fine_tune(5)
test = dls.test_dl(pd.read_csv("reviews/test.csv"), with_labels=True)
print(learn.validate(dl=test)[1])
