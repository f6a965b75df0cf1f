"""Predict who earns more than 50,000 dollars.

Defaults: a fifth of train for validation, the kinds of the columns, scaling, the network and
its size, AdamW, batch size, epochs; learner.plan lists them.
"""

from flambeau import Learner
from flambeau_tabular import TabularData

learner = Learner(TabularData.from_csv("adult/train.csv", "income", test="adult/test.csv"))
learner.fit()
print(learner.evaluate("test")["accuracy"])
