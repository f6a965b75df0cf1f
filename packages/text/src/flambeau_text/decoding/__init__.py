"""From a model to sentences: greedy search, beam search, sampling."""

from flambeau_text.decoding.beam import beam_search
from flambeau_text.decoding.decoded import Decoded, score_forced
from flambeau_text.decoding.greedy import greedy_search
from flambeau_text.decoding.penalties import Average, Gnmt
from flambeau_text.decoding.sampling import sample
from flambeau_text.decoding.strategy import Beam, Greedy, Sampling, Strategy, strategy_from_json

__all__ = [
    "Average",
    "Beam",
    "Decoded",
    "Gnmt",
    "Greedy",
    "Sampling",
    "Strategy",
    "beam_search",
    "greedy_search",
    "sample",
    "score_forced",
    "strategy_from_json",
]
