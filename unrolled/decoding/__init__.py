"""Decoding for any model with `start` and `step`: sampling, beam search, ensembles, and scores of given outputs.

Also decoding of CTC frame scores: the best path, and prefix beam search.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unrolled.lazy import door

if TYPE_CHECKING:
    from unrolled.decoding.beam import BeamSearch, Hypothesis, SearchStep, search_for
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
else:
    __getattr__ = door(
        __name__,
        {
            "beam": ("BeamSearch", "Hypothesis", "SearchStep", "search_for"),
            "combine": ("Ensemble", "forced_log_probs"),
            "ctc": ("BestPath", "best_path"),
            "ctc_beam": ("CTCBeam", "CTCHypothesis"),
            "label_scorer": ("LabelScorer", "ModelScorer", "label_tokens"),
            "lexicon": ("Lexicon",),
            "sampling": ("Sampling", "StepModel", "generate"),
            "text": ("TextStream",),
            "tree": ("search_trees", "tree_json"),
            "word_scorer": ("KenLMScorer",),
        },
    )

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
    "search_for",
    "search_trees",
    "tree_json",
]
