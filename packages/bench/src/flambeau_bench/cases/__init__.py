"""The benchmark cases by name."""

from flambeau_bench.case import Case
from flambeau_bench.cases.bn_finetune import BatchNormFineTune
from flambeau_bench.cases.callback_scaling import CallbackScaling
from flambeau_bench.cases.cold_start import ColdStart
from flambeau_bench.cases.collector import Collector
from flambeau_bench.cases.folds import Folds
from flambeau_bench.cases.inspect_cost import InspectCost
from flambeau_bench.cases.language import Language
from flambeau_bench.cases.loaders import Loaders
from flambeau_bench.cases.loop_overhead import LoopOverhead
from flambeau_bench.cases.loss_memory import LossMemory
from flambeau_bench.cases.peers_overhead import PeersOverhead
from flambeau_bench.cases.peers_vision import PeersVision
from flambeau_bench.cases.sync_count import SyncCount
from flambeau_bench.cases.tabular import Tabular
from flambeau_bench.cases.translation import Translation
from flambeau_bench.cases.translation_search import TranslationSearch
from flambeau_bench.cases.vision_fit import VisionFit

CASES: dict[str, Case] = {
    case.name: case
    for case in (
        LoopOverhead(),
        CallbackScaling(),
        Collector(),
        SyncCount(),
        InspectCost(),
        Loaders(),
        VisionFit(),
        Translation(),
        TranslationSearch(),
        ColdStart(),
        BatchNormFineTune(),
        Folds(),
        Tabular(),
        Language(),
        LossMemory(),
        PeersOverhead(),
        PeersVision(),
    )
}
"""All cases by their names on the command line."""

__all__ = [
    "CASES",
    "BatchNormFineTune",
    "CallbackScaling",
    "Case",
    "ColdStart",
    "Collector",
    "Folds",
    "InspectCost",
    "Language",
    "Loaders",
    "LoopOverhead",
    "LossMemory",
    "PeersOverhead",
    "PeersVision",
    "SyncCount",
    "Tabular",
    "Translation",
    "TranslationSearch",
    "VisionFit",
]
