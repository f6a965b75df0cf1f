"""From what the user has to batches: samples, split, preprocessor, data set, loader."""

from flambeau.data.batch import Batch
from flambeau.data.dataset import Data, Facts
from flambeau.data.datasets import ForeignData, MapDataset
from flambeau.data.foreign import ForeignDataset, ForeignLoader
from flambeau.data.gather import GatherLoader, MemoryDataset
from flambeau.data.layout import Layout
from flambeau.data.loader import Dataset, Loader, LoaderOptions
from flambeau.data.picture import Picture
from flambeau.data.preprocess import Preprocessor
from flambeau.data.samples import Problem, Samples
from flambeau.data.split import Split
from flambeau.data.tensor_preprocessor import TensorPreprocessor
from flambeau.data.tensors import TensorData
from flambeau.data.transform import Transform
from flambeau.data.workers import ItemDataset, WorkerLoader

__all__ = [
    "Batch",
    "Data",
    "Dataset",
    "Facts",
    "ForeignData",
    "ForeignDataset",
    "ForeignLoader",
    "GatherLoader",
    "ItemDataset",
    "Layout",
    "Loader",
    "LoaderOptions",
    "MapDataset",
    "MemoryDataset",
    "Picture",
    "Preprocessor",
    "Problem",
    "Samples",
    "Split",
    "TensorData",
    "TensorPreprocessor",
    "Transform",
    "WorkerLoader",
]
