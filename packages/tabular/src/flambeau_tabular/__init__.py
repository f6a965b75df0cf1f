"""Tables for flambeau: mixed columns, entity embeddings, predictions on frames.

data = TabularData.from_df(frame, target="income")
learner = Learner(data)
"""

from flambeau_tabular.data import TabularData
from flambeau_tabular.options import TabularOptions
from flambeau_tabular.preprocess import TabularPreprocessor

__all__ = ["TabularData", "TabularOptions", "TabularPreprocessor", "__version__"]

__version__ = "0.1.0"
