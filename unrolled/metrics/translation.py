"""BLEU and chrF, computed by sacreBLEU, the library that defines how they are computed and reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF


@dataclass(frozen=True)
class CorpusScore:
    """A score of a whole text, with the signature that makes it comparable.

    `mean` and `interval` come from bootstrap resampling, or are None without it. `interval` is half the width of the
    95% confidence interval.
    """

    name: str
    score: float
    signature: str
    mean: float | None = None
    interval: float | None = None

    def __str__(self) -> str:
        spread = "" if self.interval is None else f" (95% of resamples: {self.mean:.2f} ± {self.interval:.2f})"
        return f"{self.score:.2f}{spread}"


def bleu(outputs: Sequence[str], references: Sequence[str], resamples: int = 0) -> CorpusScore:
    """Compute BLEU of raw text, cased, with sacreBLEU's own tokens (Papineni et al. 2002; Post 2018)."""
    return _score(BLEU(), outputs, references, resamples)


def chrf(outputs: Sequence[str], references: Sequence[str], resamples: int = 0) -> CorpusScore:
    """Compute chrF2 (Popović 2015)."""
    return _score(_CHRF(), outputs, references, resamples)


class _CHRF(CHRF):
    """chrF whose scores are Python numbers: `statistics.mean` does not accept NumPy's next to the 0.0 of no match."""

    def _compute_f_score(self, statistics: list[int]) -> float:
        return float(super()._compute_f_score(statistics))


def _score(metric: BLEU | CHRF, outputs: Sequence[str], references: Sequence[str], resamples: int) -> CorpusScore:
    found = metric.corpus_score(list(outputs), [list(references)], n_bootstrap=resamples or 1)
    mean, interval = (found._mean, found._ci) if resamples else (None, None)
    return CorpusScore(found.name, found.score, str(metric.get_signature()), mean, interval)


def oracle(candidates: Sequence[Sequence[str]], references: Sequence[str]) -> list[str]:
    """Return for each line the candidate with the highest sentence BLEU, which a perfect ranking would choose."""
    metric = BLEU(effective_order=True)
    return [
        max(some, key=lambda text: metric.sentence_score(text, [reference]).score)
        for some, reference in zip(candidates, references, strict=True)
    ]
