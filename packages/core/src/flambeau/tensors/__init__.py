"""Core's own domain: tensors, arrays, data sets and user-defined loaders."""

from flambeau.tensors.data import TensorData
from flambeau.tensors.mlp import MLP
from flambeau.tensors.preprocess import TensorPreprocessor
from flambeau.tensors.user_data import UserData

__all__ = ["MLP", "TensorData", "TensorPreprocessor", "UserData"]
