"""Models for encoded tables and for ratings, with the builders that make them from JSON values."""

from flambeau_tabular.models.builders import MODELS
from flambeau_tabular.models.category_embedding import (
    CategoryEmbedding,
    category_widths,
    embedding_width,
)
from flambeau_tabular.models.collab import CollabDot, CollabNet, collab_dot, collab_net
from flambeau_tabular.models.mlp import TabularMLP, mlp
from flambeau_tabular.models.number_embedding import (
    BiasedPeriodicEmbedding,
    PeriodicEmbedding,
    PiecewiseLinearEmbedding,
    PiecewiseLinearEncoding,
    ple_edges,
)
from flambeau_tabular.models.recipes import Recipe, recipe
from flambeau_tabular.models.table_inputs import InputOptions, TableInputs
from flambeau_tabular.models.tabm import TabM, tabm
from flambeau_tabular.models.text_bag import TextBag

__all__ = [
    "MODELS",
    "BiasedPeriodicEmbedding",
    "CategoryEmbedding",
    "CollabDot",
    "CollabNet",
    "InputOptions",
    "PeriodicEmbedding",
    "PiecewiseLinearEmbedding",
    "PiecewiseLinearEncoding",
    "Recipe",
    "TabM",
    "TableInputs",
    "TabularMLP",
    "TextBag",
    "category_widths",
    "collab_dot",
    "collab_net",
    "embedding_width",
    "mlp",
    "ple_edges",
    "recipe",
    "tabm",
]
