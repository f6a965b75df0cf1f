"""Search for target sentences: greedy decoding, beam search and sampling."""

from flambeau_text.decoding.beam import beam_search
from flambeau_text.decoding.greedy import greedy_search
from flambeau_text.decoding.penalties import AverageLengthPenalty, GnmtLengthPenalty
from flambeau_text.decoding.result import SearchResult
from flambeau_text.decoding.sampling import sample
from flambeau_text.decoding.strategy import Beam, Greedy, Sampling, Strategy, strategy_from_json
from flambeau_text.decoding.token_scores import sequence_log_probabilities

__all__ = [
    "AverageLengthPenalty",
    "Beam",
    "GnmtLengthPenalty",
    "Greedy",
    "Sampling",
    "SearchResult",
    "Strategy",
    "beam_search",
    "greedy_search",
    "sample",
    "sequence_log_probabilities",
    "strategy_from_json",
]
