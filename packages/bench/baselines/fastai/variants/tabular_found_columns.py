"""Find the columns of categories and of numbers with cont_cat_split.

Longer than to name them, since it needs the frame.
"""

from fastai.tabular.all import *

train = pd.read_csv("adult/train.csv")
cont_names, cat_names = cont_cat_split(train, dep_var="income")
procs = [Categorify, FillMissing, Normalize]
dls = TabularDataLoaders.from_df(train, ".", procs, cat_names, cont_names, "income")
learn = tabular_learner(dls, metrics=accuracy)
learn.fit_one_cycle(3)
print(learn.validate(dl=dls.test_dl(pd.read_csv("adult/test.csv")))[1])
