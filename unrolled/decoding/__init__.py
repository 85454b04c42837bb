"""Decoding for any model with `start` and `step`: sampling, beam search, ensembles, and scores of given outputs.

Also decoding of CTC frame scores: the best path, and prefix beam search.
"""

from unrolled.decoding.beam import BeamSearch, Hypothesis, SearchStep
from unrolled.decoding.combine import Ensemble, forced_log_probs
from unrolled.decoding.ctc import BestPath, best_path
from unrolled.decoding.sampling import Sampling, generate
from unrolled.decoding.text import TextStream
from unrolled.decoding.tree import search_trees, tree_json
from unrolled.models.contract import StepModel

__all__ = [
    "BeamSearch",
    "BestPath",
    "Ensemble",
    "Hypothesis",
    "Sampling",
    "SearchStep",
    "StepModel",
    "TextStream",
    "best_path",
    "forced_log_probs",
    "generate",
    "search_trees",
    "tree_json",
]
