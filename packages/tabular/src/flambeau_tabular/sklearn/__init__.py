"""Estimators for scikit-learn: pipelines, cross-validation and searches with flambeau's models.

from flambeau_tabular.sklearn import FlambeauClassifier

Importing this package imports scikit-learn; ``import flambeau_tabular`` does not.
"""

from flambeau_tabular.sklearn.classifier import FlambeauClassifier
from flambeau_tabular.sklearn.expected_checks import expected_failed_checks
from flambeau_tabular.sklearn.regressor import FlambeauRegressor

__all__ = ["FlambeauClassifier", "FlambeauRegressor", "expected_failed_checks"]
