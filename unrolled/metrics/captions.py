"""Scores of captions: BLEU, ROUGE-L, METEOR, CIDEr, and how much the captions vary."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unrolled.data.caption_tokens import caption_tokens
from unrolled.errors import DataError
from unrolled.metrics.cider import Cider, CiderD
from unrolled.metrics.meteor import find_resources, meteor, meteor_statistics, missing
from unrolled.metrics.overlap import bleu, bleu_statistics, rouge_l
from unrolled.metrics.report import Report, Value

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CaptionScore:
    """One score of a set of captions.

    value: the score of the whole set. Fractions of 1, except that CIDEr and CIDEr-D are fractions of 10.
    interval: half the width of its 95% confidence interval, or None without resamples.
    captions: the score of each caption alone, with shape (captions,), or None where only the set has a score.
    """

    value: float
    interval: float | None = None
    captions: FloatArray | None = None


@dataclass(frozen=True, eq=False)
class CaptionScores:
    """The scores of captions against the references of their pictures.

    cider_d: what the server of COCO and `pycocoevalcap` report as CIDEr. `cider` is without clipping and the penalty
        on length.
    meteor: None if a package that it needs is not installed, or if it was not asked for.
    novel: the share of captions that are not among the training captions, or None without training captions.
    words: the number of different words in the captions. distinct: the share of different captions.
    captions, resamples: the numbers of captions and of bootstrap resamples.
    """

    bleu1: CaptionScore
    bleu2: CaptionScore
    bleu3: CaptionScore
    bleu4: CaptionScore
    rouge_l: CaptionScore
    cider: CaptionScore
    cider_d: CaptionScore
    meteor: CaptionScore | None
    novel: CaptionScore | None
    words: int
    distinct: float
    captions: int
    resamples: int


def score_captions(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    training: Iterable[str] = (),
    *,
    resamples: int = 1000,
    seed: int = 0,
    with_meteor: bool = True,
) -> CaptionScores:
    """Score one caption of each picture against the picture's references, all as raw text.

    The scores equal those of `pycocoevalcap`, the scorer of COCO's captions, which needs Java. The text is cut into
    words by `caption_tokens`. An n-gram's document frequency is the number of the scored pictures with a reference
    that contains it, so CIDEr is comparable only on the same set of pictures. With fewer than two pictures it is 0.
    Intervals come from `resamples` sets of pictures, drawn with replacement; document frequencies stay as they are.

    METEOR reads its data from an installed `pycocoevalcap`, which takes seconds.

    training: the captions that the model was trained on, for `novel`.
    Raises DataError if the numbers of both differ, if there are no captions, or if a picture has no reference.
    """
    if len(hypotheses) != len(references):
        raise DataError(f"{len(hypotheses):,} captions for {len(references):,} pictures: give one for each")
    if not hypotheses:
        raise DataError("there are no captions to score")
    lacking = next((index for index, each in enumerate(references) if not each), None)
    if lacking is not None:
        raise DataError(f"picture {lacking + 1:,} has no reference caption")
    found = [caption_tokens(text) for text in hypotheses]
    wanted = [[caption_tokens(text) for text in each] for each in references]

    statistics = np.array([bleu_statistics(*pair) for pair in zip(found, wanted, strict=True)], dtype=float)
    means = {"rouge_l": np.array([rouge_l(*pair) for pair in zip(found, wanted, strict=True)])}
    for name, kind in (("cider", Cider), ("cider_d", CiderD)):
        means[name] = kind(wanted).score(found, wanted) if len(wanted) > 1 else np.zeros(1)
    known = {tuple(caption_tokens(text)) for text in training}
    if known:
        means["novel"] = np.array([tuple(tokens) not in known for tokens in found], dtype=float)

    sample = _Resampling(len(found), resamples, seed)
    alone = bleu(statistics)
    totals, spread = sample.statistic(statistics, bleu)
    scores: dict[str, CaptionScore] = {}
    for index in range(4):
        interval = None if spread is None else float(spread[index])
        scores[f"bleu{index + 1}"] = CaptionScore(float(totals[index]), interval, alone[:, index])
    suited = _meteor_statistics(found, wanted) if with_meteor else None
    if suited is not None:
        total, half = sample.statistic(suited, meteor)
        scores["meteor"] = CaptionScore(float(total), None if half is None else float(half), meteor(suited))
    for name, values in means.items():
        mean, half = sample.statistic(values[:, None], lambda sums: sums / len(found))
        scores[name] = CaptionScore(float(mean[0]), None if half is None else float(half[0]), values)
    return CaptionScores(
        **{name: scores[name] for name in ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider", "cider_d")},
        meteor=scores.get("meteor"),
        novel=scores.get("novel"),
        words=len({token for tokens in found for token in tokens}),
        distinct=len({tuple(tokens) for tokens in found}) / len(found),
        captions=len(found),
        resamples=resamples,
    )


def captions_report(scores: CaptionScores, data: str) -> Report:
    """Return the scores of captions of `data` as a report: fractions in JSON, times 100 in the table, as in papers.

    The first value is CIDEr-D. A score that is None has no row.
    """
    rows = (
        ("cider_d", "CIDEr-D", scores.cider_d),
        ("bleu1", "BLEU-1", scores.bleu1),
        ("bleu2", "BLEU-2", scores.bleu2),
        ("bleu3", "BLEU-3", scores.bleu3),
        ("bleu4", "BLEU-4", scores.bleu4),
        ("meteor", "METEOR", scores.meteor),
        ("rouge_l", "ROUGE-L", scores.rouge_l),
        ("cider", "CIDEr, unclipped", scores.cider),
        ("novel", "new captions", scores.novel),
    )
    values = [
        Value(name, score.value, label, _shown(score, "%" if name == "novel" else ""), score.interval)
        for name, label, score in rows
        if score is not None
    ]
    values.append(Value("distinct", scores.distinct, "distinct captions", f"{scores.distinct:.1%}"))
    values.append(Value("words", scores.words, "words used", f"{scores.words:,}"))
    notes = ["scores times 100, as papers have them; CIDEr-D is COCO's CIDEr"]
    if scores.meteor is None and missing():
        notes.append(f"no METEOR: pip install {missing()}")
    if scores.resamples:
        notes.append(f"± is half of the 95% interval over {scores.resamples:,} resamples of the pictures")
    return Report(data, f"{data}: {scores.captions:,} captions", tuple(values), tuple(notes))


def _shown(score: CaptionScore, unit: str) -> str:
    spread = "" if score.interval is None else f" ± {100 * score.interval:.1f}"
    return f"{100 * score.value:.1f}{spread}{unit}"


def _meteor_statistics(found: list[list[str]], wanted: list[list[list[str]]]) -> FloatArray | None:
    """Return the statistics of METEOR, with shape (captions, 21), or None without its data."""
    resources = find_resources()
    if resources is None:
        return None
    ours = [resources.words(" ".join(tokens)) for tokens in found]
    theirs = [[resources.words(" ".join(tokens)) for tokens in each] for each in wanted]
    resources.prepare(ours, (words for each in theirs for words in each))
    return np.array([meteor_statistics(*pair, resources) for pair in zip(ours, theirs, strict=True)], dtype=float)


class _Resampling:
    """Sums over captions, and what functions of these sums vary by when the captions are drawn again."""

    def __init__(self, captions: int, resamples: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        self._drawn = [
            np.bincount(random.integers(captions, size=captions), minlength=captions).astype(np.uint16)
            for _ in range(resamples)
        ]

    def statistic(
        self, statistics: FloatArray, function: Callable[[FloatArray], FloatArray]
    ) -> tuple[FloatArray, FloatArray | None]:
        """Return `function` of the sums, and half the width of its 95% interval, or None without resamples.

        statistics: shape (captions, statistics). function: maps sums of shape (..., statistics) to (..., values).
        """
        value = function(statistics.sum(0))
        if not self._drawn:
            return value, None
        low, high = np.percentile(
            function(np.stack([drawn @ statistics for drawn in self._drawn])), [2.5, 97.5], axis=0
        )
        return value, (high - low) / 2
