"""flambeau: train deep networks on PyTorch with less code, more speed and nothing hidden.

data = ImageData.from_folder("photos")      every data choice in one object
learner = Learner(data)                     a plan: every other choice, with its reason
learner.fit()
learner.predict(["cat.jpg"])
learner.export("pets")
"""

from flambeau.artefact.predictor import Predictor
from flambeau.callbacks import Checkpointing, EarlyStopping, HistoryWriter, ProgressBar
from flambeau.data import Batch, Data, Split
from flambeau.domain import Domain
from flambeau.errors import FlambeauError, FlambeauWarning
from flambeau.learner import Learner
from flambeau.phases import Phase, Schedule
from flambeau.plan import Choice, Plan, Rule
from flambeau.task import Classification, MultiLabel, Regression, Task
from flambeau.tensors.data import TensorData
from flambeau.training import (
    EMA,
    SWA,
    Callback,
    ReduceOnPlateau,
    Step,
    StepResult,
    TrainingOptions,
    TrainState,
)

__version__ = "0.1.0"

__all__ = [
    "EMA",
    "SWA",
    "Batch",
    "Callback",
    "Checkpointing",
    "Choice",
    "Classification",
    "Data",
    "Domain",
    "EarlyStopping",
    "FlambeauError",
    "FlambeauWarning",
    "HistoryWriter",
    "Learner",
    "MultiLabel",
    "Phase",
    "Plan",
    "Predictor",
    "ProgressBar",
    "ReduceOnPlateau",
    "Regression",
    "Rule",
    "Schedule",
    "Split",
    "Step",
    "StepResult",
    "Task",
    "TensorData",
    "TrainState",
    "TrainingOptions",
]
