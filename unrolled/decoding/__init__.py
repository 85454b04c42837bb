"""Decoding for any model with `start` and `step`: sampling, beam search, ensembles, and scores of given outputs.

Also decoding of CTC frame scores: the best path, and prefix beam search.
"""

from unrolled.decoding.beam import BeamSearch, Hypothesis, SearchStep
from unrolled.decoding.combine import Ensemble, forced_log_probs
from unrolled.decoding.ctc import BestPath, best_path
from unrolled.decoding.ctc_beam import CTCBeam, CTCHypothesis
from unrolled.decoding.label_scorer import LabelScorer, ModelScorer, label_tokens
from unrolled.decoding.lexicon import Lexicon
from unrolled.decoding.sampling import Sampling, generate
from unrolled.decoding.text import TextStream
from unrolled.decoding.tree import search_trees, tree_json
from unrolled.decoding.word_scorer import KenLMScorer
from unrolled.models.contract import StepModel

__all__ = [
    "BeamSearch",
    "BestPath",
    "CTCBeam",
    "CTCHypothesis",
    "Ensemble",
    "Hypothesis",
    "KenLMScorer",
    "LabelScorer",
    "Lexicon",
    "ModelScorer",
    "Sampling",
    "SearchStep",
    "StepModel",
    "TextStream",
    "best_path",
    "forced_log_probs",
    "generate",
    "label_tokens",
    "search_trees",
    "tree_json",
]
