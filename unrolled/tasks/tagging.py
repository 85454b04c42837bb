"""Tagging: sentences whose words have a label each, a tagger, accuracy, and F1 of spans."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from unrolled.data.lines import read_json
from unrolled.data.tag_batches import (
    UNKNOWN,
    Encoder,
    Index,
    TagBatch,
    TagBatches,
    count_tags,
    from_json,
    normal,
    to_json,
)
from unrolled.data.tagged import TaggedSentence, read_tagged, retagged
from unrolled.data.tokens import Progress
from unrolled.errors import ConfigurationError, DataError, RunError
from unrolled.metrics.report import Report, Value
from unrolled.metrics.spans import Scheme, SpanScore, from_iob1, is_valid, may_follow, scheme_of, score_spans
from unrolled.models.crf import Allowed
from unrolled.models.tagger import Tagger
from unrolled.tasks.base import Task
from unrolled.tasks.tagging_settings import SentencesConfig, TagEvaluation, TaggingConfig, TaggingInfo
from unrolled.training import Run

WORDS, CHARACTERS, TAGS = "vocabulary-words.json", "vocabulary-characters.json", "vocabulary-tags.json"
SENTENCES_FILE = "sentences.json"
#: The most words that are tagged at once.
_WORDS_AT_ONCE = 4096


def prepare(run: Run, config: SentencesConfig) -> None:
    """Read the sentences, learn what there is to number, and write both into a new run's directory."""
    if not config.data:
        raise ConfigurationError("`data` is missing: a file of tagged sentences", setting="data")
    train, dev = _read(config.data, config), _read(config.dev, config) if config.dev else []
    if not config.dev:
        cut = len(train) - int(len(train) * config.val_fraction)
        train, dev = train[:cut], train[cut:]
    notes = []
    scheme = scheme_of(count_tags(train))
    broken = 0 if scheme is None else sum(not is_valid(one.tags, scheme) for one in train)
    if scheme == "iob2" and broken:
        notes.append(f"{broken:,} sentences have an I- tag that starts a span (IOB1); all are converted to IOB2")
        train, dev = ([retagged(one, from_iob1(one.tags)) for one in part] for part in (train, dev))
    elif scheme and broken:
        notes.append(f"{broken:,} sentences break the scheme {scheme.upper()}; it is not enforced")
    tags = count_tags(train)
    if foreign := Counter({tag: count for tag, count in count_tags(dev).items() if tag not in tags}):
        notes.append(
            f"{len(foreign):,} tags of the dev part are not in training ({', '.join(sorted(foreign)[:5])}): their "
            f"{foreign.total():,} words count as errors"
        )
    Index.learn(Counter(normal(word) for one in train for word in one.words), config.min_count).save(run.path / WORDS)
    letters = Counter(chain.from_iterable(word for one in train for word in one.words))
    Index.learn(letters).save(run.path / CHARACTERS)
    Index(sorted(tags, key=lambda tag: (tag != "O", tag))).save(run.path / TAGS)
    stored = {"train": to_json(train), "dev": to_json(dev), "notes": notes}
    (run.path / SENTENCES_FILE).write_text(json.dumps(stored, ensure_ascii=False), encoding="utf-8")


def _read(path: str, config: SentencesConfig) -> list[TaggedSentence]:
    found = list(read_tagged(path, config.column, form=config.format))
    if not found:
        raise DataError(f"{path}: there are no sentences in it")
    return found


class TaggingTask(TaggingInfo, Task):
    """A tagger with its sentences."""

    model: Tagger

    @classmethod
    def prepare(cls, run: Run, settings: TaggingConfig, progress: Progress = lambda what, share: None) -> None:
        """Read the sentences and number what is in them, in a new run's directory."""
        prepare(run, settings.sentences)

    def read(self) -> None:
        path = self.run.path / SENTENCES_FILE
        self.words = Index.load(self.run.path / WORDS)
        self.characters = Index.load(self.run.path / CHARACTERS)
        self.tags = Index.load(self.run.path / TAGS)
        try:
            stored = read_json(path)
            self.train, self.dev = from_json(stored["train"]), from_json(stored["dev"])
            self.notes = [str(note) for note in stored["notes"]]
        except (ValueError, KeyError, TypeError, DataError) as error:
            raise RunError(f"{path}: missing or damaged ({error})") from error
        self.encoder = Encoder(self.words, self.characters, self.tags)
        #: How the tags mark spans; None if they do not.
        self.scheme: Scheme | None = scheme_of(self.tags.strings)

    def build(self) -> Tagger:
        return self._model(len(self.words), len(self.characters))

    def _model(self, words: int, characters: int) -> Tagger:
        config, allowed = self.config.model, None
        crf = self.scheme is not None if config.crf is None else config.crf
        if crf and self.scheme and all(is_valid(one.tags, self.scheme) for one in self.train):
            allowed = allowed_tags(self.tags.strings, self.scheme)
        return config.build(words, characters, len(self.tags), crf, allowed)

    def token_keys(self) -> dict[str, Sequence[Hashable]]:
        return {"words": self.words.strings, "characters": self.characters.strings, "tags": self.tags.strings}

    def grown(self, tokens: str) -> Tagger:
        model = self._model(len(self.words) + (tokens == "words"), len(self.characters) + (tokens == "characters"))
        if tokens == "tags":
            crf = model.crf is not None
            return self.config.model.build(len(self.words), len(self.characters), len(self.tags) + 1, crf, None)
        return model

    def check(self) -> None:
        """Raise DataError if there is nothing to train on."""
        if not self.train:
            raise DataError(f"{self.config.sentences.data}: no sentences are left to train on")
        self.epoch(0).batch(0)

    def verify(self) -> None:
        """Raise RunError if a training sentence has a tag that has no number."""
        for one in self.train:
            if unknown := set(one.tags) - self.tags.number.keys():
                raise RunError(f"{self.run.path / SENTENCES_FILE}: damaged, it has a tag {unknown.pop()!r}")

    # -- the loop's view -----------------------------------------------------------------------------------------

    def epoch(self, number: int) -> TagBatches:
        training = self.config.training
        return TagBatches(self.encoder, self.train, training.batch_size, (training.seed, number))

    def loss(self, batch: TagBatch, state: None = None) -> tuple[Tensor, None]:
        """Return the negative log-likelihood of the tags, summed over the words, in nats."""
        return self.model.loss(batch, batch.targets), None

    @torch.no_grad()
    def validate(self, step: int | None = None) -> float | None:
        """Return the loss per word of the dev part, over the sentences whose tags the model can give."""
        known = [one for one in self.dev if self._can_give(one)]
        total = sum(float(self.loss(batch.to(self.device))[0]) for batch in self._batches(known))
        return total / sum(len(one.words) for one in known) if known else None

    def _can_give(self, sentence: TaggedSentence) -> bool:
        if not set(sentence.tags) <= self.tags.number.keys():
            return False
        return self.model.crf is None or self.scheme is None or is_valid(sentence.tags, self.scheme)

    def _batches(self, sentences: Sequence[TaggedSentence]) -> Iterable[TagBatch]:
        """Iterate over batches in the order of the sentences, which should be sorted by length."""
        first = 0
        while first < len(sentences):
            end, longest = first, 0
            while end < len(sentences):
                longest = max(longest, len(sentences[end].words))
                if end > first and longest * (end + 1 - first) > _WORDS_AT_ONCE:
                    break
                end += 1
            yield self.encoder.batch(sentences[first:end])
            first = end

    def preview(self, step: int) -> str:
        """Return a sentence of the dev part, or of training, with its predicted tags."""
        part = self.dev or self.train
        sentence = part[step % len(part)]
        found = self.tag([sentence])[0]
        pairs = zip(sentence.words, sentence.tags, found, strict=True)
        return " ".join(f"{word}/{tag}" if tag == given else f"{word}/{tag}({given}?)" for word, given, tag in pairs)

    def count(self) -> dict[str, int]:
        sizes = {name: len(getattr(self, name)) for name in ("words", "characters", "tags")}
        return {"train": len(self.train), "dev": len(self.dev), **sizes}

    def closing(self) -> list[str]:
        """Return the score of the best checkpoint on the dev part, and what was noticed in the data."""
        lines = self.load("best").evaluate(TagEvaluation()).lines() if self.dev else []
        return [*lines, *(f"note: {note}" for note in self.notes)]

    # -- use -----------------------------------------------------------------------------------------------------

    def tag(self, sentences: Sequence[TaggedSentence | Sequence[str]]) -> list[list[str]]:
        """Return the best tags of each sentence, given as a list of words."""
        given = [one if isinstance(one, TaggedSentence) else _sentence(one) for one in sentences]
        order = sorted((k for k, one in enumerate(given) if one.words), key=lambda k: len(given[k].words))
        found: list[list[str]] = [[] for _ in given]
        places = iter(order)
        for batch in self._batches([given[k] for k in order]):
            for tags in self.model.decode(batch.to(self.device)):
                found[next(places)] = [self.tags.strings[tag] for tag in tags]
        return found

    def marginals(self, words: Sequence[str]) -> list[dict[str, float]]:
        """Return the probability of every tag for every word of a sentence."""
        if not words:
            return []
        batch = self.encoder.batch([_sentence(words)]).to(self.device)
        rows = self.model.marginals(batch)[:, 0].tolist()
        return [dict(zip(self.tags.strings, row, strict=True)) for row in rows]

    def evaluate(self, asked: TagEvaluation) -> Report:
        """Report accuracy and, if the tags mark spans, precision, recall and F1 over `asked.data` or the dev part."""
        data, sentences = "dev", self.dev
        if asked.data:
            column = asked.column or self.config.sentences.column
            data, sentences = asked.data, list(read_tagged(asked.data, column, form=asked.format))
        if not sentences:
            where = f"{data}: there are no sentences in it" if asked.data else f"{self.run.path}: nothing was held out"
            raise DataError(f"{where}; give `data`", setting="data")
        wanted = [one.tags for one in sentences]
        if self.scheme == "iob2" and not all(is_valid(tags, "iob2") for tags in wanted):
            wanted = [tuple(from_iob1(tags)) for tags in wanted]
        found = self.tag(sentences)
        pairs = list(zip(chain.from_iterable(wanted), chain.from_iterable(found), strict=True))
        words = list(chain.from_iterable(one.words for one in sentences))
        new = [pair for word, pair in zip(words, pairs, strict=True) if self.words[normal(word)] == 0]
        accuracy, unseen = _share(pairs), _share(new)
        values = [Value("words", len(pairs)), Value("sentences", len(sentences))]
        shown = f"{accuracy:.2%} of {len(pairs):,} words"
        if new:
            shown += f"; {unseen:.2%} of the {len(new):,} that are {UNKNOWN}"
        of_words = [Value("accuracy", accuracy, "accuracy", shown), Value("accuracy_unknown", unseen if new else None)]
        if self.scheme:
            total, each = score_spans(wanted, found, self.scheme)
            values.append(Value("f1", total.f1, "F1 of spans", _described(total), signature=f"strict {self.scheme}"))
            values += of_words
            for kind, score in each.items():
                values += [Value(f"types.{kind}.f1", score.f1, kind, _described(score))]
        else:
            values += of_words
        return Report(data, f"{data}: {len(sentences):,} sentences, {len(pairs):,} words", tuple(values))


def allowed_tags(tags: Sequence[str], scheme: Scheme) -> Allowed:
    """Return which tags a scheme allows at the start, at the end, and after one another, for a CRF."""
    return Allowed(
        torch.tensor([may_follow(None, tag, scheme) for tag in tags]),
        torch.tensor([may_follow(tag, None, scheme) for tag in tags]),
        torch.tensor([[may_follow(before, after, scheme) for after in tags] for before in tags]),
    )


def _sentence(words: Sequence[str]) -> TaggedSentence:
    if isinstance(words, str):
        raise ConfigurationError("a sentence must be a list of words, not one string", setting="sentences")
    return TaggedSentence(tuple(words))


def _share(pairs: Sequence[tuple[str, str]]) -> float:
    return sum(one == other for one, other in pairs) / len(pairs) if pairs else 0.0


def _described(score: SpanScore) -> str:
    return f"{score.f1:.2%} (precision {score.precision:.2%}, recall {score.recall:.2%}; {score.wanted:,} spans)"


def create_run(path: Path, config: TaggingConfig) -> TaggingTask:
    """Create a run directory with its sentences; nothing remains of it after an error."""
    return TaggingTask.create(path, config)
