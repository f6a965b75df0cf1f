"""Predict who earns more than 50,000 dollars.

Defaults: a fifth of train for validation, batches of 64, embedding sizes, layers of 200 and
100, Adam, learning rate 0.001 with one cycle.
"""

from fastai.tabular.all import *

dls = TabularDataLoaders.from_csv(
    "adult/train.csv",
    y_names="income",
    cat_names=[
        "workclass",
        "education",
        "marital_status",
        "occupation",
        "relationship",
        "race",
        "sex",
        "native_country",
    ],
    cont_names=[
        "age",
        "fnlwgt",
        "education_num",
        "capital_gain",
        "capital_loss",
        "hours_per_week",
    ],
    procs=[Categorify, FillMissing, Normalize],
)
learn = tabular_learner(dls, metrics=accuracy)
learn.fit_one_cycle(3)
print(learn.validate(dl=dls.test_dl(pd.read_csv("adult/test.csv")))[1])
