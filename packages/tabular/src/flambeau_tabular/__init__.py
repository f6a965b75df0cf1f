"""Tables for flambeau: mixed columns, entity embeddings, predictions on frames.

data = TabularData.from_df(frame, target="income")
learner = Learner(data)

``CollabData`` reads ratings and choices of users, for recommendations.
"""

from flambeau_tabular.collab_data import CollabData
from flambeau_tabular.collab_options import CollabOptions
from flambeau_tabular.csv_options import CsvOptions
from flambeau_tabular.data import TabularData
from flambeau_tabular.frequency_probe import FrequencyProbe, probe_frequency
from flambeau_tabular.options import TabularOptions
from flambeau_tabular.preprocess import TabularPreprocessor
from flambeau_tabular.ranking_scores import RankingScores, ranking_scores
from flambeau_tabular.recommend import Recommended, Recommender

__all__ = [
    "CollabData",
    "CollabOptions",
    "CsvOptions",
    "FrequencyProbe",
    "RankingScores",
    "Recommended",
    "Recommender",
    "TabularData",
    "TabularOptions",
    "TabularPreprocessor",
    "__version__",
    "probe_frequency",
    "ranking_scores",
]

__version__ = "0.1.0"
