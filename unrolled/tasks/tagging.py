"""Tagging: sentences whose words have a label each, a tagger, accuracy, and F1 of spans."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Hashable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from unrolled.data.batch import batches_by_length
from unrolled.data.lines import read_json
from unrolled.data.notes import lacking_note, many, named
from unrolled.data.tag_batches import (
    Index,
    TagBatch,
    TagBatches,
    TagEncoder,
    as_json,
    count_tags,
    normalise,
    sentences_of,
)
from unrolled.data.tagged import TaggedSentence, format_of, read_tagged, retagged
from unrolled.data.tokens import Progress
from unrolled.errors import ConfigurationError, DataError, RunError
from unrolled.metrics.confusion import by_true
from unrolled.metrics.report import Report, Value
from unrolled.metrics.spans import Scheme, SpanScore, from_iob1, is_valid, may_follow, scheme_of, score_spans
from unrolled.models.crf import Allowed
from unrolled.models.tagger import Tagger
from unrolled.settings import require, to_json
from unrolled.tasks.base import Task
from unrolled.tasks.tagging_settings import (
    TAGS_FILE,
    Noticed,
    SentencesConfig,
    TagEvaluation,
    TaggingConfig,
    TaggingInfo,
)
from unrolled.tasks.vectors import start_embedding, store_vectors
from unrolled.training import Run

WORDS, CHARACTERS, TAGS = "vocabulary-words.json", "vocabulary-characters.json", "vocabulary-tags.json"
SENTENCES_FILE = "sentences.json"
#: Characters that occur less often are unknown, so that the unknown character is trained.
_MIN_CHARACTERS = 2
#: The most sequences of tags that `best` returns for a sentence. Its memory grows with them.
MOST_SEQUENCES = 10_000
#: The most words that are tagged at once.
_WORDS_AT_ONCE = 4096


def prepare(run: Run, config: SentencesConfig) -> None:
    """Read the sentences, learn what there is to number, and write both into a new run's directory."""
    if not config.data:
        raise ConfigurationError("`data` is missing: a file of tagged sentences", setting="data")
    if Path(config.data).suffix == ".npz":
        raise DataError(
            f"{config.data}: frames are labelled by `unrolled train segment`, words by `unrolled train tag`"
        )
    train, dev = _read(config.data, config), _read(config.dev, config) if config.dev else []
    if not config.dev:
        cut = len(train) - int(len(train) * config.val_fraction)
        train, dev = train[:cut], train[cut:]
    if not train:
        said = f"{config.data}: no sentences are left to train on; lower `val_fraction`"
        raise DataError(said, setting="val_fraction")
    tags = count_tags(train)
    scheme, notes = scheme_of(tags), []
    broken = 0 if scheme is None else sum(not is_valid(one.tags, scheme) for one in train)
    if scheme == "iob2" and broken:
        notes.append(f"IOB1 was converted to IOB2: {many(broken, 'sentence')} had an I- tag that starts a span")
        train, dev = ([retagged(one, from_iob1(one.tags)) for one in part] for part in (train, dev))
        tags = count_tags(train)
    elif scheme and broken:
        notes.append(f"the scheme {scheme.upper()} is not enforced: {many(broken, 'sentence')} of training break it")
    if scheme is None and (odd := _odd_tags(tags)):
        notes.append(f"the tags look like spans, but are neither IOB2 nor BIOES, so spans are not scored: {odd}")
    if len(tags) == 1:
        notes.append(f"all words of training have the same tag, {next(iter(tags))!r}: is it the right `column`?")
    notes += _unknown_tags(tags, dev, "the dev part")
    words = Counter(normalise(word) for one in train for word in one.words)
    Index.learn(words, config.min_count).save(run.path / WORDS)
    letters = Counter(chain.from_iterable(word for one in train for word in one.words))
    Index.learn(letters, _MIN_CHARACTERS).save(run.path / CHARACTERS)
    Index(sorted(tags, key=lambda tag: (tag != "O", tag))).save(run.path / TAGS)
    stored = {"train": as_json(train), "dev": as_json(dev)}
    (run.path / SENTENCES_FILE).write_text(json.dumps(stored, ensure_ascii=False), encoding="utf-8")
    enforced = "" if scheme is None or (scheme == "bioes" and broken) else scheme
    noticed = Noticed(scheme is not None, enforced, tuple(notes))
    text = json.dumps(to_json(noticed), ensure_ascii=False, indent=2) + "\n"
    (run.path / TAGS_FILE).write_text(text, encoding="utf-8")


def _odd_tags(tags: Iterable[str]) -> str:
    """Return some tags that keep the others from being a scheme; empty if no tag looks like a part of a span."""
    marked = [tag for tag in tags if tag[:2] in ("B-", "I-") and tag[2:]]
    odd = sorted(tag for tag in tags if tag != "O" and tag not in marked)
    return ", ".join(odd[:5]) if marked else ""


def _unknown_tags(known: Container[str], sentences: Sequence[TaggedSentence], where: str) -> list[str]:
    """Return a note on the tags that training lacks, in a list that is empty if there are none."""
    unknown = Counter({tag: count for tag, count in count_tags(sentences).items() if tag not in known})
    return lacking_note(unknown, "tag", where)


def _read(path: str, config: SentencesConfig) -> list[TaggedSentence]:
    found = list(read_tagged(path, config.column, form=config.format))
    if not found:
        raise DataError(f"{path}: there are no sentences in it")
    return found


class TagSequence(NamedTuple):
    """The tags of a sentence, and their log-probability in nats."""

    tags: tuple[str, ...]
    log_prob: float


class TaggingTask(TaggingInfo, Task):
    """A tagger with its sentences."""

    model: Tagger

    @classmethod
    def prepare(cls, run: Run, settings: TaggingConfig, progress: Progress = lambda what, share: None) -> None:
        """Read the sentences and number what is in them, in a new run's directory."""
        prepare(run, settings.sentences)
        if settings.model.vectors is not None:
            number = Index.load(run.path / WORDS).number
            width = settings.model.embedding_size
            store_vectors(run.path, settings.model.vectors, number, width, form=normalise)

    def read(self) -> None:
        self.words = Index.load(self.run.path / WORDS)
        self.characters = Index.load(self.run.path / CHARACTERS)
        self.tags = Index.load(self.run.path / TAGS)
        self.encoder = TagEncoder(self.words, self.characters, self.tags)
        #: How the tags mark spans; None if they do not.
        self.scheme: Scheme | None = scheme_of(self.tags.strings)
        #: The scheme that a CRF enforces, if it does.
        self.enforced: Scheme | None = self.scheme if self.crf and self.noticed.scheme else None

    @cached_property
    def sentences(self) -> dict[str, list[TaggedSentence]]:
        """The sentences of the run: "train" and "dev"."""
        path = self.run.path / SENTENCES_FILE
        try:
            stored = read_json(path)
            found = {name: sentences_of(stored[name]) for name in ("train", "dev")}
            if not found["train"]:
                raise ValueError("there is no sentence to train on")
            return found
        except (ValueError, KeyError, TypeError, DataError) as error:
            raise RunError(f"{path}: missing or damaged ({error})") from error

    @property
    def train(self) -> list[TaggedSentence]:
        """The sentences to train on."""
        return self.sentences["train"]

    @property
    def dev(self) -> list[TaggedSentence]:
        """The sentences held out."""
        return self.sentences["dev"]

    def build(self) -> Tagger:
        model = self._model(len(self.words), len(self.characters))
        self._started = 0
        if self.config.model.vectors is not None:
            self._started = start_embedding(model.embedding, self.run.path, fixed=self.config.model.fix_vectors)
        return model

    def _model(self, words: int, characters: int) -> Tagger:
        allowed = allowed_tags(self.tags.strings, self.enforced) if self.enforced else None
        return self.config.model.build(words, characters, len(self.tags), self.crf, allowed)

    def token_keys(self) -> dict[str, Sequence[Hashable]]:
        return {"words": self.words.strings, "characters": self.characters.strings, "tags": self.tags.strings}

    def grown(self, tokens: str) -> Tagger:
        if tokens == "tags":
            return self.config.model.build(len(self.words), len(self.characters), len(self.tags) + 1, self.crf, None)
        return self._model(len(self.words) + (tokens == "words"), len(self.characters) + (tokens == "characters"))

    def verify(self) -> None:
        """Raise RunError if a training sentence has a tag that has no number."""
        for one in self.train:
            if unknown := set(one.tags) - self.tags.number.keys():
                raise RunError(f"{self.run.path / SENTENCES_FILE}: damaged, it has a tag {unknown.pop()!r}")

    # -- the loop's view -----------------------------------------------------------------------------------------

    def epoch(self, number: int) -> TagBatches:
        training = self.config.training
        seed = training.seed, number
        return TagBatches(self.encoder, self.train, training.batch_size, seed, training.word_dropout)

    def loss(self, batch: TagBatch, state: None = None) -> tuple[Tensor, None]:
        """Return the negative log-likelihood of the tags, summed over the words, in nats."""
        return self.model.loss(batch, batch.targets), None

    @torch.no_grad()
    def validate(self, step: int | None = None) -> float | None:
        """Return the loss per word of the dev part, over the sentences whose tags the model can give."""
        return self._mean_loss(self.dev)

    def _mean_loss(self, sentences: Sequence[TaggedSentence]) -> float | None:
        known = [one for one in sentences if self._can_give(one)]
        total = sum(float(self.loss(batch)[0]) for _, batch, _ in self._in_batches(known))
        return total / sum(len(one.words) for one in known) if known else None

    def _can_give(self, sentence: TaggedSentence) -> bool:
        if not set(sentence.tags) <= self.tags.number.keys():
            return False
        return self.enforced is None or is_valid(sentence.tags, self.enforced)

    def preview(self, step: int) -> str:
        """Return a sentence of the dev part, or of training, with its predicted tags."""
        part = self.dev or self.train
        sentence = part[step % len(part)]
        found = self.tag([sentence])[0]
        pairs = zip(sentence.words, sentence.tags, found, strict=True)
        return " ".join(f"{word}/{tag}" if tag == given else f"{word}/{tag}({given}?)" for word, given, tag in pairs)

    def count(self) -> dict[str, int]:
        sizes = {name: len(getattr(self, name)) for name in ("words", "characters", "tags")}
        return {"train": len(self.train), "dev": len(self.dev), **sizes, "started": self._started}

    def closing(self) -> list[str]:
        """Return the score of the best checkpoint on the dev part."""
        return self.load("best").evaluate(TagEvaluation()).lines() if self.dev else []

    # -- use -----------------------------------------------------------------------------------------------------

    def tag(self, sentences: Sequence[TaggedSentence | Sequence[str]]) -> list[list[str]]:
        """Return the best tags of each sentence, given as a list of words.

        Of a sentence for whose length the scheme allows no tags, they are the best without the scheme; see `unruly`.
        """
        given = [one if isinstance(one, TaggedSentence) else _sentence(one) for one in sentences]
        found: list[list[str]] = [[] for _ in given]
        for places, batch, ruled in self._in_batches(given):
            for place, tags in zip(places, self.model.decode(batch, ruled), strict=True):
                found[place] = [self.tags.strings[tag] for tag in tags]
        return found

    def marginals(self, words: Sequence[str]) -> list[dict[str, float]]:
        """Return the probability of every tag for every word of a sentence."""
        return self.all_marginals([_sentence(words)])[0]

    def all_marginals(self, sentences: Sequence[TaggedSentence]) -> list[list[dict[str, float]]]:
        """Return the probability of every tag for every word of each sentence; sentences are read in batches."""
        found: list[list[dict[str, float]]] = [[] for _ in sentences]
        for places, batch, ruled in self._in_batches(sentences):
            rows = self.model.marginals(batch, ruled).transpose(0, 1).tolist()
            for place, row in zip(places, rows, strict=True):
                length = len(sentences[place].words)
                found[place] = [dict(zip(self.tags.strings, each, strict=True)) for each in row[:length]]
        return found

    def best(self, sentences: Sequence[TaggedSentence | Sequence[str]], n: int) -> list[list[TagSequence]]:
        """Return the `n` most probable sequences of tags of each sentence, the best first; fewer if there are fewer."""
        require(1 <= n <= MOST_SEQUENCES, "best", f"from 1 to {MOST_SEQUENCES:,}", n)
        given = [one if isinstance(one, TaggedSentence) else _sentence(one) for one in sentences]
        found = [[TagSequence((), 0.0)] for _ in given]
        for places, batch, ruled in self._in_batches(given, max(1, _WORDS_AT_ONCE // n)):
            for place, paths in zip(places, self.model.best(batch, n, ruled), strict=True):
                names = self.tags.strings
                found[place] = [TagSequence(tuple(names[tag] for tag in path.tags), path.score) for path in paths]
        return found

    def unruly(self, sentences: Sequence[TaggedSentence]) -> list[int]:
        """Return the numbers of the sentences for whose length the scheme that the CRF enforces allows no tags.

        If no tag of training may stand alone, such as B-LOC and E-LOC without S-LOC and O, sentences of one word are.
        """
        crf = self.model.crf
        if crf is None or self.enforced is None:
            return []
        possible = crf.possible(max((len(one.words) for one in sentences), default=0)).tolist()
        return [k for k, one in enumerate(sentences) if one.words and not possible[len(one.words) - 1]]

    def unruly_note(self, sentences: Sequence[str], where: str) -> str:
        """Return a note on such sentences, which are given by their names."""
        count, rules = many(len(sentences), "sentence"), (self.enforced or "").upper()
        return (
            f"{where}: {rules} allows no tags for the length of {count}, tagged without its rules: {named(sentences)}"
        )

    def _in_batches(
        self, sentences: Sequence[TaggedSentence], at_once: int = _WORDS_AT_ONCE
    ) -> Iterator[tuple[list[int], TagBatch, bool]]:
        """Iterate over batches of the sentences that have words, sorted by length, with their places.

        A batch has at most `at_once` words with its padding, or one sentence. The last value is whether the rules of
        the CRF can hold, which is the same for all sentences of a batch.
        """
        unruly = self.unruly(sentences)
        ruled = set(range(len(sentences))).difference(unruly)
        for group, hold in ((sorted(ruled), True), (unruly, False)):
            filled = [k for k in group if sentences[k].words]
            for some in batches_by_length([len(sentences[k].words) for k in filled], at_once):
                places = [filled[k] for k in some]
                yield places, self.encoder.batch([sentences[k] for k in places]).to(self.device), hold

    def evaluate(self, asked: TagEvaluation) -> Report:
        """Report accuracy and, if the tags mark spans, precision, recall and F1 over `asked.data` or the dev part."""
        data = asked.data or "dev"
        sentences, notes = self._asked(asked) if asked.data else (self.dev, [])
        if not sentences:
            where = f"{data}: there are no sentences in it" if asked.data else f"{self.run.path}: nothing was held out"
            raise DataError(f"{where}; give `data`", setting="data")
        with torch.no_grad():
            loss = self._mean_loss(sentences)
        if loss is not None:
            self.require_number(loss, data)
        wanted = [one.tags for one in sentences]
        found = self.tag(sentences)
        if unruly := self.unruly(sentences):
            notes = [*notes, self.unruly_note([f"number {k + 1:,}" for k in unruly], data)]
        pairs = list(zip(chain.from_iterable(wanted), chain.from_iterable(found), strict=True))
        words = list(chain.from_iterable(one.words for one in sentences))
        new = [pair for word, pair in zip(words, pairs, strict=True) if self.words[normalise(word)] == 0]
        accuracy, unseen = _share(pairs), _share(new)
        values = [Value("words", len(pairs)), Value("sentences", len(sentences))]
        shown = f"{accuracy:.2%} of {len(pairs):,} words"
        if new:
            shown += f"; {unseen:.2%} of the {len(new):,} without an embedding of their own"
        of_words = [Value("accuracy", accuracy, "accuracy", shown), Value("accuracy_unknown", unseen if new else None)]
        of_words.append(Value("loss", loss))
        if self.scheme:
            total, each = score_spans(wanted, found, self.scheme)
            values.append(Value("f1", total.f1, "F1 of spans", _described(total), signature=f"strict {self.scheme}"))
            values += of_words
            for kind, score in each.items():
                name = kind.replace(".", ":")  # a dot in a name makes a group
                values += [Value(f"types.{name}.f1", score.f1, kind, _described(score))]
        else:
            values += of_words
        values.append(Value("confusion", by_true(pairs)))
        heading = f"{data}: {many(len(sentences), 'sentence')}, {many(len(pairs), 'word')}"
        return Report(data, heading, tuple(values), tuple(notes))

    def _asked(self, asked: TagEvaluation) -> tuple[list[TaggedSentence], list[str]]:
        """Return the sentences of a file, as the run has them, and notes about them."""
        form, column = self.form_and_column(asked.data, asked.format, asked.column)
        sentences = list(read_tagged(asked.data, column, form=form))
        notes, tags = [], count_tags(sentences)
        if self.scheme and set(tags) - {"O"} and scheme_of(tags) != self.scheme:
            notes.append(f"its tags are not {self.scheme.upper()}, as those of training are")
        elif self.scheme == "iob2" and not all(is_valid(one.tags, "iob2") for one in sentences):
            sentences = [retagged(one, from_iob1(one.tags)) for one in sentences]
            notes.append("IOB1 was converted to IOB2")
        return sentences, [*notes, *_unknown_tags(self.tags.number, sentences, asked.data)]

    def form_and_column(self, path: str, form: str = "", column: str = "") -> tuple[str, str]:
        """Return the format of a file and the column of its tags: those of training if nothing else is said."""
        config = self.config.sentences
        trained = config.format or format_of(config.data)
        form = form or format_of(path, trained)
        return form, column or (config.column if form == trained else "")


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
    if not all(isinstance(word, str) for word in words):
        raise ConfigurationError("the words of a sentence must be strings", setting="sentences")
    return TaggedSentence(tuple(words))


def _share(pairs: Sequence[tuple[str, str]]) -> float:
    return sum(one == other for one, other in pairs) / len(pairs) if pairs else 0.0


def _described(score: SpanScore) -> str:
    return f"{score.f1:.2%} (precision {score.precision:.2%}, recall {score.recall:.2%}; {score.wanted:,} spans)"


def create_run(path: Path, config: TaggingConfig) -> TaggingTask:
    """Create a run directory with its sentences; nothing remains of it after an error."""
    return TaggingTask.create(path, config)
