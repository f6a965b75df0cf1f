"""Train neural networks on PyTorch, with every automatic choice and its reason visible in a plan.

data = ImageData.from_folder("photos")      reads and splits the data
learner = Learner(data)                     chooses model, preprocessing and hyperparameters
print(learner.plan)                         shows each choice with its reason
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
