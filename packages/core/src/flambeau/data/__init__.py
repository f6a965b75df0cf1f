"""The data pipeline: samples, split, preprocessor, data set, loader, batch."""

from flambeau.data.batch import Batch
from flambeau.data.collate import BatchLayout
from flambeau.data.data import Data
from flambeau.data.facts import Facts
from flambeau.data.loader import Dataset, Loader, LoaderOptions
from flambeau.data.memory_loader import MemoryDataset, MemoryLoader
from flambeau.data.preprocess import Preprocessor
from flambeau.data.preview import Preview
from flambeau.data.samples import Problem, Samples
from flambeau.data.split import Split
from flambeau.data.transform import Transform
from flambeau.data.user_dataset import MapDataset, UserLoaderDataset
from flambeau.data.user_loader import UserLoader
from flambeau.data.worker_loader import LazyDataset, WorkerLoader

__all__ = [
    "Batch",
    "BatchLayout",
    "Data",
    "Dataset",
    "Facts",
    "LazyDataset",
    "Loader",
    "LoaderOptions",
    "MapDataset",
    "MemoryDataset",
    "MemoryLoader",
    "Preprocessor",
    "Preview",
    "Problem",
    "Samples",
    "Split",
    "Transform",
    "UserLoader",
    "UserLoaderDataset",
    "WorkerLoader",
]
