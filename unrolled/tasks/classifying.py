"""Classifying: labelled texts, a classifier, accuracy, and F1 of classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from unrolled.data import Vocabulary, load_vocabulary
from unrolled.data.batch import batches_by_length
from unrolled.data.class_batches import (
    ClassBatch,
    ClassBatches,
    EncodedTexts,
    cut,
    load_texts,
)
from unrolled.data.labelled import LabelledTexts, count_labels, format_of, read_labelled
from unrolled.data.notes import lacking_note, many
from unrolled.data.text_parts import Part, parts_of
from unrolled.data.tokens import Progress
from unrolled.errors import ConfigurationError, DataError, RunError
from unrolled.lazy import Place
from unrolled.metrics.classes import ClassScore, ClassScores, score_classes
from unrolled.metrics.report import Report, Value
from unrolled.models.classifier import Classifier
from unrolled.tasks.base import Task
from unrolled.tasks.classifying_data import (
    TEXTS_FILE,
    VOCABULARY_FILE,
    as_read,
    encode,
    prepare,
    targets_of,
)
from unrolled.tasks.classifying_settings import (
    AUDIO,
    ClassEvaluation,
    ClassifyingConfig,
    ClassifyingInfo,
)
from unrolled.tasks.language import LanguageTask
from unrolled.tasks.vectors import start_embedding, store_vectors
from unrolled.training import Run
from unrolled.training.layers import LayerGroup

#: The most steps, padding included, that are read at once outside training.
_STEPS_AT_ONCE = 16_384
#: The probability from which a text has a class, if it may have several.
THRESHOLD = 0.5


#: Recordings: the class of their tasks, and what prepares them. They build on this file, so it does not import theirs.
_SOUNDS = Place("unrolled.tasks.classifying_sounds:SoundClassifyingTask")
_PREPARE_SOUNDS = Place("unrolled.tasks.classifying_sounds:prepare_sounds")


class ClassifyingTask(ClassifyingInfo, Task):
    """A classifier with its texts."""

    model: Classifier

    def __new__(cls, run: Run, device: str | None = None) -> Self:
        """Return a task of the class for the run's data: recordings have one of their own."""
        texts = run.config.get("texts")
        if cls is ClassifyingTask and isinstance(texts, dict) and texts.get("level") == AUDIO:
            kind: type[Self] = _SOUNDS.load()
            return object.__new__(kind)
        return object.__new__(cls)

    @classmethod
    def prepare(cls, run: Run, settings: ClassifyingConfig, progress: Progress = lambda what, share: None) -> None:
        """Read the texts and write them as numbers into a new run's directory."""
        cls._prepare(run, settings, progress, None)

    @classmethod
    def prepare_from(cls, source: Task, run: Run, settings: ClassifyingConfig, progress: Progress) -> None:
        """Do what `prepare` does; from a language model take its vocabulary, too, so that its tokens stay the same."""
        cls._prepare(run, settings, progress, source.vocabulary if isinstance(source, LanguageTask) else None)

    @classmethod
    def _prepare(cls, run: Run, settings: ClassifyingConfig, progress: Progress, vocabulary: Vocabulary | None) -> None:
        if settings.texts.level == AUDIO:
            _PREPARE_SOUNDS.load()(run, settings, progress)
            return
        prepare(run, settings, progress, vocabulary)
        if settings.model.vectors is not None:
            if settings.texts.level != "word":
                said = (
                    f"`vectors` need the level word, but the texts' level is {settings.texts.level}: add `level=word`"
                )
                raise ConfigurationError(said, setting=("vectors", "level"))
            names = load_vocabulary(run.path / VOCABULARY_FILE).names()
            number = {name: k for k, name in enumerate(names)}
            store_vectors(run.path, settings.model.vectors, number, settings.model.embedding_size)

    def read(self) -> None:
        self.vocabulary: Vocabulary = load_vocabulary(self.run.path / VOCABULARY_FILE)
        names = self.classes.names
        self._number = {name: k for k, name in enumerate(names)}

    @cached_property
    def texts(self) -> dict[str, EncodedTexts]:
        """The encoded texts of the run: "train" and "dev"."""
        path = self.run.path / TEXTS_FILE
        parts = load_texts(path)
        shape = (len(self.classes.names) + len(self.classes.unseen),) if self.classes.multi else ()
        for name in ("train", "dev"):
            if name not in parts or (parts[name].targets.shape[1:] != shape and len(parts[name])):
                raise RunError(f"{path}: damaged, its part {name!r} is missing or does not fit the classes")
        return parts

    @property
    def train(self) -> EncodedTexts:
        """The texts to train on."""
        return self.texts["train"]

    @property
    def dev(self) -> EncodedTexts:
        """The texts held out."""
        return self.texts["dev"]

    def build(self) -> Classifier:
        model = self._model(len(self.vocabulary), len(self.classes.names))
        if self.config.model.vectors is not None and model.embedding is not None:
            start_embedding(model.embedding, self.run.path, fixed=self.config.model.fix_vectors)
        return model

    def _model(self, tokens: int, classes: int) -> Classifier:
        weights = self._class_weights() if classes == len(self.classes.names) else None
        return self.config.model.build(tokens, classes, self.classes.multi, weights)

    def _class_weights(self) -> Tensor | None:
        """Return what an error counts for each class, `[K]`."""
        if self.config.training.class_weights == "none":
            return None
        counts = torch.tensor(self.classes.counts, dtype=torch.get_default_dtype())
        if self.classes.multi:  # texts without the class count as much in total as those with it
            return (len(self.train) - counts).clamp_min(1) / counts
        return counts.sum() / (len(counts) * counts)

    def token_keys(self) -> Mapping[str, Sequence[Hashable]]:
        return {"vocabulary": self.vocabulary.keys(), "classes": self.classes.names}

    def weights_from(self, source: Task) -> Mapping[str, str]:
        """From a language model come the embedding and the recurrent layers."""
        if not isinstance(source, LanguageTask):
            return super().weights_from(source)
        names = self.model.state_dict()
        return {name: name for name in names if name.startswith(("embedding.", "recurrent."))}

    def layer_groups(self) -> list[LayerGroup]:
        """Return the layers with their rates (discriminative fine-tuning) and starts (gradual unfreezing).

        Source: Howard & Ruder 2018, "Universal Language Model Fine-tuning for Text Classification".
        """
        training, layers = self.config.training, self.model.layers()
        depths = range(len(layers) - 1, -1, -1)
        return [
            LayerGroup(layer, training.layer_decay**-depth, training.unfreeze_every * depth)
            for layer, depth in zip(layers, depths, strict=True)
        ]

    def grown(self, tokens: str) -> Classifier:
        return self._model(len(self.vocabulary) + (tokens == "vocabulary"), len(self._number) + (tokens == "classes"))

    def verify(self) -> None:
        """Raise RunError if a text has a token or a class that has no number."""
        path = self.run.path / TEXTS_FILE
        for part in (self.train, self.dev):
            highest = max((int(one.max()) for one in part.tokens), default=0)
            lowest = min((int(one.min()) for one in part.tokens), default=0)
            if highest >= len(self.vocabulary) or lowest < 0:
                raise RunError(f"{path}: damaged, a token is not in the vocabulary")
            classes = 2 if self.classes.multi else len(self.classes.names) + len(self.classes.unseen)
            if part.targets.size and not 0 <= part.targets.min() <= part.targets.max() < classes:
                raise RunError(f"{path}: damaged, a text has a class without a name")

    # -- the loop's view -----------------------------------------------------------------------------------------

    def epoch(self, number: int) -> ClassBatches:
        training = self.config.training
        return ClassBatches(self.train, training.batch_size, (training.seed, number), training.word_dropout)

    def loss(self, batch: ClassBatch, state: None = None) -> tuple[Tensor, None]:
        """Return the negative log-likelihood of the classes, summed over the texts, in nats."""
        return self.model.loss(batch, batch.targets), None

    @torch.no_grad()
    def validate(self, step: int | None = None) -> float | None:
        """Return the loss per text of the dev part, over the texts whose classes the model can give."""
        return self._judged(self.dev)[1]

    @torch.no_grad()
    def _judged(self, texts: EncodedTexts) -> tuple[Tensor, float | None]:
        """Return the probability of every class for each text, `[N, K]`, and the mean loss; None if none is counted."""
        classes = len(self.classes.names)
        found = torch.zeros(len(texts), classes)
        total, count = 0.0, 0
        for rows in self._batches(texts.tokens):
            batch = texts.batch(rows).to(self.device)
            targets = batch.targets[:, :classes] if self.classes.multi else batch.targets
            if not self.classes.multi:
                targets = targets.where(targets < classes, -1)
            scores = self.model(batch)
            total += float(self.model.loss_of(scores, targets))
            count += int((targets >= 0).sum())
            found[rows] = self.model.probabilities(scores).float().cpu()
        return found, total / count if count else None

    def _batches(self, tokens: Sequence[np.ndarray]) -> Iterator[list[int]]:
        return batches_by_length([len(one) for one in tokens], _STEPS_AT_ONCE)

    def preview(self, step: int) -> str:
        """Return the beginning of a text of the dev part, or of training, with its labels and the predicted ones."""
        part = self.dev if len(self.dev) else self.train
        row = step % len(part)
        (chances,) = self._judged(EncodedTexts([part.tokens[row]], part.targets[row : row + 1]))[0].tolist()
        shown = " ".join(self.vocabulary.decode(part.tokens[row][:60]).split())
        best = sorted(zip(chances, self.classes.names, strict=True), reverse=True)[:3]
        given = ", ".join(self._labels(part)[row]) or "none"
        return f"{shown}\nlabel {given}; found {', '.join(f'{name} {chance:.2f}' for chance, name in best)}"

    def _labels(self, part: EncodedTexts) -> list[tuple[str, ...]]:
        """Return the labels of each text."""
        names = [*self.classes.names, *self.classes.unseen]
        if self.classes.multi:
            return [tuple(names[k] for k in np.flatnonzero(row)) for row in part.targets]
        return [(names[k],) for k in part.targets.tolist()]

    def count(self) -> dict[str, int]:
        tokens = sum(len(one) for one in self.train.tokens)
        return {"train": len(self.train), "dev": len(self.dev), "tokens": tokens, "vocabulary": len(self.vocabulary)}

    def closing(self) -> list[str]:
        """Return the score of the best checkpoint on the dev part."""
        return self.load("best").evaluate(ClassEvaluation()).lines() if len(self.dev) else []

    # -- use -----------------------------------------------------------------------------------------------------

    def tokens_of(self, text: str) -> np.ndarray:
        """Return the tokens that are read of a text, int64 `[T]`, at least one."""
        if not isinstance(text, str):
            raise ConfigurationError("a text must be a string", setting="texts")
        config = self.config.texts
        return cut(encode(self.vocabulary, as_read(text, config)), config.max_length, config.keep)

    def parts(self, text: str) -> tuple[Tensor, list[Part]]:
        """Return the tokens that are read of a text, `[T]`, and its words with the number of tokens of each."""
        config = self.config.texts
        text = as_read(text, config)
        tokens = encode(self.vocabulary, text)
        kept = cut(np.arange(len(tokens)), config.max_length, config.keep)
        parts = parts_of(self.vocabulary, text, kept.tolist())
        if not any(part.tokens for part in parts):  # nothing of it is in the vocabulary
            parts = [Part(text, 1)]
        return torch.from_numpy(tokens[kept]).to(self.device), parts

    def probabilities(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """Return the probability of every class for each text, the most probable class first."""
        if isinstance(texts, str):
            raise ConfigurationError("texts must be a list of strings, not one string", setting="texts")
        return self._of_frames([self.tokens_of(text) for text in texts])

    def _of_frames(self, tokens: Sequence[np.ndarray]) -> list[dict[str, float]]:
        """Return the probability of every class for sequences of tokens or frames, the most probable class first."""
        found, _ = self._judged(EncodedTexts(tokens, np.full(self._shape(len(tokens)), -1)))
        order = found.argsort(dim=1, descending=True, stable=True).tolist()
        names = self.classes.names
        return [{names[k]: row[k] for k in places} for places, row in zip(order, found.tolist(), strict=True)]

    def _shape(self, rows: int) -> tuple[int, ...]:
        return (rows, len(self.classes.names)) if self.classes.multi else (rows,)

    def classify(self, texts: Sequence[str]) -> list[tuple[str, ...]]:
        """Return the labels of each text: the most probable class, or all with a probability of at least 0.5."""
        return [self.chosen(chances) for chances in self.probabilities(texts)]

    def chosen(self, chances: Mapping[str, float]) -> tuple[str, ...]:
        """Return the labels for the probabilities of a text."""
        if self.classes.multi:
            return tuple(name for name, chance in chances.items() if chance >= THRESHOLD)
        return (max(chances, key=chances.__getitem__),)

    def evaluate(self, asked: ClassEvaluation) -> Report:
        """Report accuracy, F1, and the scores of each class over `asked.data` or the dev part."""
        data, notes = asked.data or "dev", list[str]()
        if asked.data:
            part, wanted, notes = self._asked(asked)
        else:
            part, wanted = self.dev, self._labels(self.dev)
        if not len(part):
            raise DataError(f"{self.run.path}: nothing was held out; give `data`", setting="data")
        chances, loss = self._judged(part)
        if loss is not None:
            self.require_number(loss, data)
        names = self.classes.names
        found = [self.chosen(dict(zip(names, row, strict=True))) for row in chances.tolist()]
        scores = score_classes(wanted, found, self.classes.multi)
        return Report(
            data, f"{data}: {many(len(part), 'text')}", _values(scores, loss, self.classes.multi), tuple(notes)
        )

    def labelled(self, asked: ClassEvaluation) -> LabelledTexts:
        """Return the texts of a file or folder, with the columns of training unless `asked` names others."""
        config = self.config.texts
        text, label = asked.text_column or config.text_column, asked.label_column or config.label_column
        found = read_labelled(asked.data, text, label, form=asked.format or format_of(asked.data, config.format))
        if found.multi and not self.classes.multi:
            raise DataError(f"{asked.data}: its texts have lists of labels, those of training have one label each")
        return found

    def _asked(self, asked: ClassEvaluation) -> tuple[EncodedTexts, list[tuple[str, ...]], list[str]]:
        """Return the texts of a file or folder, their labels, and notes about them."""
        read, names = self.labelled(asked), self.classes.names
        unseen = Counter({name: n for name, n in count_labels(read.texts).items() if name not in self._number})
        targets = targets_of(read.texts, [*names, *unseen], self.classes.multi)
        part = EncodedTexts([self.tokens_of(one.text) for one in read.texts], targets)
        return part, [one.labels for one in read.texts], [*read.notes, *lacking_note(unseen, "label", asked.data)]


def _values(scores: ClassScores, loss: float | None, multi: bool) -> tuple[Value, ...]:
    """Return the values of a report: accuracy first, or, with several labels per text, F1 over all labels."""
    accuracy = Value("accuracy", scores.accuracy, "accuracy", f"{scores.accuracy:.2%}")
    macro = Value("macro_f1", scores.macro_f1, "macro F1", f"{scores.macro_f1:.2%}")
    if multi:
        micro = Value("micro_f1", scores.micro_f1, "micro F1", _described(scores.total))
        exact = Value("accuracy", scores.accuracy, "all labels right", f"{scores.accuracy:.2%}")
        values = [micro, macro, exact]
    else:
        values = [accuracy, macro]
    values.append(Value("loss", loss))
    for name, score in scores.each.items():
        group = f"classes.{name.replace('.', ':')}"  # a dot in a name makes a group
        values.append(Value(f"{group}.f1", score.f1, name, _described(score)))
        values += [
            Value(f"{group}.{what}", getattr(score, what)) for what in ("precision", "recall", "wanted", "found")
        ]
    if not multi:
        values.append(Value("confusion", scores.confusion))
    return tuple(values)


def _described(score: ClassScore) -> str:
    return f"F1 {score.f1:.2%} (precision {score.precision:.2%}, recall {score.recall:.2%}; {score.wanted:,} texts)"


def create_run(path: Path, config: ClassifyingConfig) -> ClassifyingTask:
    """Create a run directory with its texts; nothing remains of it after an error."""
    return ClassifyingTask.create(path, config)
