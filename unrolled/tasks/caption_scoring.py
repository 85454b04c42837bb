"""Scores of a captioner, next to those of captions that need no decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from unrolled.data.caption_tokens import caption_text, caption_tokens
from unrolled.data.captions import read_captions, read_names
from unrolled.data.notes import many, named
from unrolled.decoding import BeamSearch
from unrolled.errors import DataError
from unrolled.metrics.captions import CaptionScores, captions_report, score_captions
from unrolled.metrics.report import Report, Value
from unrolled.models.captioner import PictureFeatures
from unrolled.tasks.caption_baselines import NearestNeighbours, constant_caption
from unrolled.tasks.caption_features import Features, open_features
from unrolled.tasks.captioning_data import Pictures
from unrolled.tasks.captioning_settings import CaptionEvaluation, CaptionsConfig, options_of
from unrolled.tasks.describer import Caption, Describer, Member

#: The pictures whose features are read at once.
_AT_ONCE = 128
#: The scores that the line of a baseline shows.
_SHOWN = (("bleu1", "BLEU-1"), ("bleu4", "BLEU-4"), ("meteor", "METEOR"), ("cider_d", "CIDEr-D"))


class Scored(Member, Protocol):
    """What scoring needs of a captioner's task."""

    @property
    def pictures(self) -> Pictures: ...

    @property
    def dev(self) -> range: ...

    @property
    def features(self) -> Features: ...

    @property
    def feature_rows(self) -> np.ndarray: ...

    def as_features(self, vectors: np.ndarray, grids: np.ndarray | None) -> PictureFeatures: ...

    def require_signature(self, signature: str) -> None: ...

    def require_number(self, loss: float, data: str) -> None: ...

    def dev_loss(self) -> float | None: ...

    def describe_own(
        self, pictures: Sequence[int], how: BeamSearch, others: Sequence[Any] = ()
    ) -> list[list[Caption]]: ...


def score_run(task: Scored, asked: CaptionEvaluation) -> Report:
    """Return the scores of a run's captions of `asked.data` or of the pictures held out, with those of the baselines.

    Raises DataError if there are no such pictures.
    """
    from unrolled.tasks import open_task

    how = BeamSearch(**options_of(asked))
    kind: Any = type(task)
    others: list[Any] = [open_task(run, str(task.device), "best", kind) for run in asked.ensemble]
    loss, notes = None, list[str]()
    if asked.data:
        data = asked.data
        references, files, features, rows, notes = _given(task, asked)

        def describe(first: int, end: int) -> list[list[Caption]]:
            return Describer([task, *others]).describe(_read(task, features, rows[first:end]), how)

    elif len(task.dev):
        data, loss = "dev", task.dev_loss()
        references = [task.pictures.captions[k] for k in task.dev]
        files = task.pictures.files[task.dev.start :]
        features, rows = task.features, task.feature_rows[task.dev.start :]

        def describe(first: int, end: int) -> list[list[Caption]]:
            return task.describe_own(list(task.dev)[first:end], how, others)

    else:
        raise DataError(f"{task.run.path}: nothing was held out; give `data`", setting="data")
    found = [some for first in range(0, len(references), _AT_ONCE) for some in describe(first, first + _AT_ONCE)]
    known = [text for some in task.pictures.captions[: task.pictures.train] for text in some]
    scores = score_captions(_texts(found), references, known, resamples=asked.resamples)
    report = captions_report(scores, data)
    values = list(report.values)
    if loss is not None:
        task.require_number(loss, data)
        values.append(Value("loss", loss, "cross-entropy", f"{loss:.4f} nats per word"))
    if asked.baselines:
        values += _baselines(task, features.vectors(rows), references)
        found_by_template, more = _template(task, files, features, rows, references)
        values, notes = values + found_by_template, notes + more
    return Report(report.data, report.heading, tuple(values), (*report.notes, *notes))


def _texts(found: Sequence[Sequence[Caption]]) -> list[str]:
    return [some[0].text if some else "" for some in found]


def _read(task: Scored, features: Features, rows: np.ndarray) -> PictureFeatures:
    grids = features.grids(rows) if task.config.model.reads_grid else None
    return task.as_features(features.vectors(rows), grids)


def _given(
    task: Scored, asked: CaptionEvaluation
) -> tuple[list[list[str]], list[str], Features, np.ndarray, list[str]]:
    """Return the captions of given pictures that can be read, their files, features and rows, and notes."""
    config = task.config.captions
    columns = config.file_column, config.text_column
    found, notes = read_captions(asked.data, asked.images, *columns, need_files=not config.features)
    if asked.names:
        wanted = read_names(asked.names)
        found = [one for one in found if one.name in wanted or one.file.name in wanted]
        if not found:
            raise DataError(f"{asked.names}: none of its pictures has captions in {asked.data}", setting="names")
    source = CaptionsConfig(features=config.features, encoder=task.noticed.encoder or config.encoder)
    features, keys, unread = open_features(source, found, task.config.model.reads_grid, lambda what, share: None)
    task.require_signature(features.signature)
    if not any(keys):
        raise DataError(f"{asked.data}: none of its pictures can be read (the first: {found[0].name})")
    if unread:
        notes.append(f"{many(len(unread), 'picture')} cannot be read: {named(unread)}")
    read = [one for one, key in zip(found, keys, strict=True) if key]
    references, files = [list(one.captions) for one in read], [str(one.file) for one in read]
    return references, files, features, features.rows([key for key in keys if key]), notes


def _baselines(task: Scored, vectors: np.ndarray, references: Sequence[Sequence[str]]) -> list[Value]:
    """Return the scores of a constant caption and of the captions of similar pictures."""
    train = task.pictures.train
    known = [[tuple(caption_tokens(text)) for text in some] for some in task.pictures.captions[:train]]
    constant = caption_text(str(word) for word in constant_caption(known))
    neighbours = NearestNeighbours(task.features.vectors(task.feature_rows[:train]), known)
    near = [caption_text(str(word) for word in tokens) for tokens in neighbours.describe(vectors)]
    values = []
    for name, label, texts in (
        ("constant", "constant caption", [constant] * len(references)),
        ("neighbours", "nearest neighbours", near),
    ):
        values += _row(name, label, score_captions(texts, references, resamples=0))
    values.append(Value("constant.caption", constant))
    return values


def _template(
    task: Scored, files: Sequence[str], features: Features, rows: np.ndarray, references: Sequence[Sequence[str]]
) -> tuple[list[Value], list[str]]:
    """Return the scores and the faults of captions from a template, and a note if there are none."""
    from unrolled.tasks.caption_template import detector_of, template_captions
    from unrolled.tasks.template_faults import fault_rates

    try:
        detector = detector_of(task, lambda what, share: None)
        captions = template_captions(detector, files, features, rows)
    except DataError as error:
        return [], [f"no captions from a template: {error}"]
    values = _row("template", "template", score_captions([one.short for one in captions], references, resamples=0))
    whole = score_captions([one.text for one in captions], references, resamples=0)
    values += _row("template.whole", "template, all of it", whole)
    rates = fault_rates(detector, [one.detections for one in captions], references)
    shown = (
        f"{rates.missed_rate:.1%} of the objects are missed, {rates.false_rate:.1%} of the detections are false, "
        f"{rates.wrong_colour_rate:.1%} of the colours are wrong"
    )
    values.append(Value("template.missed", rates.missed_rate, "template's faults", shown))
    values.append(Value("template.false", rates.false_rate))
    values.append(Value("template.wrong_colours", rates.wrong_colour_rate))
    return values, []


def _row(name: str, label: str, scores: CaptionScores) -> list[Value]:
    """Return the values of a baseline; the first one has a line in the table."""
    found = [(key, shown, score.value) for key, shown in _SHOWN if (score := getattr(scores, key)) is not None]
    line = " · ".join(f"{shown} {100 * value:.1f}" for _, shown, value in found)
    first, *rest = [Value(f"{name}.{key}", value) for key, _, value in found]
    return [Value(first.name, first.value, label, line), *rest]
