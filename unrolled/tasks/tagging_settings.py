"""The settings of a tagger's run, and the facts about it that need no model."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, ClassVar, get_args

from tyro.conf import arg

from unrolled.cells import CELL_NAMES, cell_label, require_cell
from unrolled.data.lines import read_json
from unrolled.data.tagged import Format
from unrolled.errors import ConfigurationError, DataError, RunError
from unrolled.settings import from_json, require, require_choice
from unrolled.tasks.checks import require_vectors
from unrolled.tasks.info import TaskInfo
from unrolled.tasks.pairs import short_name
from unrolled.training import TrainingConfig

if TYPE_CHECKING:
    from unrolled.models.crf import Allowed
    from unrolled.models.tagger import Tagger

#: What was noticed of the tags, in a run's directory.
TAGS_FILE = "tags.json"


@dataclass(frozen=True)
class SentencesConfig:
    """Sentences."""

    data: Annotated[str, arg(metavar="FILE")] = ""
    """Sentences to train on, plain or gzip: CoNLL columns, CoNLL-U (.conllu), or JSON lines (.jsonl)."""
    dev: Annotated[str, arg(metavar="FILE")] = ""
    """Sentences for validation; none: the last `val_fraction` of `data`."""
    val_fraction: float = 0.1
    """Fraction of the sentences, at their end, for validation if no `dev` is given."""
    column: Annotated[str, arg(metavar="NAME")] = ""
    """Column of the tags: a name in CoNLL-U (upos), a number in columns (-1, the last), a key in JSON (tags)."""
    format: str = ""
    """Format of the files: conll, conllu or jsonl (as their names say, or conll)."""
    min_count: int = 2
    """Words that occur less often in training share one embedding; their letters are read all the same."""

    def __post_init__(self) -> None:
        require_choice("format", self.format or "conll", get_args(Format)[1:])
        require(self.min_count >= 1, "min_count", "at least 1", self.min_count)
        require(0 <= self.val_fraction < 1, "val_fraction", "from 0 to below 1", self.val_fraction)


@dataclass(frozen=True)
class TaggerConfig:
    """Model."""

    cell: Annotated[str, arg(metavar="NAME", help=f"One of {CELL_NAMES}.")] = "lstm"
    hidden_size: int = 200
    """Units per layer and direction."""
    num_layers: int = 1
    """Number of layers."""
    bidirectional: bool = True
    """Read the sentence in both directions; `no_bidirectional`: only forwards."""
    embedding_size: int = 100
    """Width of the words' embedding."""
    character_size: int = 32
    """Width of the characters' embedding; 0: do not read the letters of words."""
    character_hidden_size: int = 50
    """Units per direction of the layer that reads the letters of a word."""
    dropout: float = 0.5
    """Dropout on the input of the layers, between them, and on their output."""
    forget_bias: float = 1.0
    """Initial bias of the forget gate, in cells that have one."""
    vectors: Annotated[str | None, arg(metavar="FILE")] = None
    """Start the words' embedding from a text file of word vectors; needs their width as `embedding_size`."""
    fix_vectors: bool = False
    """Do not train the embedding that starts from `vectors`."""
    crf: bool | None = None
    """Score sequences of tags with a CRF; `no_crf`: each tag alone (a CRF if the tags mark spans, as B-PER does)."""

    def __post_init__(self) -> None:
        require_cell(self.cell)
        for name, low, high in (
            ("hidden_size", 1, 65_536),
            ("embedding_size", 1, 65_536),
            ("character_size", 0, 65_536),
            ("character_hidden_size", 1, 65_536),
            ("num_layers", 1, 1000),
        ):
            value = getattr(self, name)
            require(low <= value <= high, name, f"from {low} to {high:,}", value)
        require_vectors(self.vectors, self.fix_vectors)
        require(0 <= self.dropout < 1, "dropout", "from 0 to below 1", self.dropout)
        require(abs(self.forget_bias) <= 1000, "forget_bias", "from -1000 to 1000", self.forget_bias)

    def build(self, words: int, characters: int, tags: int, crf: bool, allowed: Allowed | None) -> Tagger:
        from unrolled.models.tagger import Tagger

        return Tagger(
            words,
            characters,
            tags,
            self.cell,
            embedding_size=self.embedding_size,
            character_size=self.character_size,
            character_hidden_size=self.character_hidden_size,
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            bidirectional=self.bidirectional,
            dropout=self.dropout,
            forget_bias=self.forget_bias,
            crf=crf,
            allowed=allowed,
        )


@dataclass(frozen=True)
class TagTraining(TrainingConfig):
    """Training."""

    batch_size: int = 32
    """Sentences per update."""
    epochs: Annotated[float | None, arg(metavar="N")] = None
    """Stop after this many passes over the sentences (10 if no limit is set)."""
    eval_every: int = 400
    """Updates between two validations, each of which writes a checkpoint."""
    sample_every: int = 400
    """Updates between two samples; 0: no samples."""
    word_dropout: float = 0.0
    """Probability that training treats a word as unknown, so that it has only its letters."""
    clip_norm: float = 5.0
    """Rescale gradients whose norm is above this; 0: never."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.word_dropout < 1, "word_dropout", "from 0 to below 1", self.word_dropout)


@dataclass(frozen=True)
class TaggingConfig:
    """All settings of a tagger's run."""

    sentences: SentencesConfig = field(default_factory=SentencesConfig)
    model: TaggerConfig = field(default_factory=TaggerConfig)
    training: TagTraining = field(default_factory=TagTraining)


@dataclass(frozen=True)
class Noticed:
    """What was noticed of the tags in training.

    spans: whether they mark spans. scheme: the scheme that a CRF enforces; empty if it enforces none.
    """

    spans: bool = False
    scheme: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TagEvaluation:
    """The sentences to score a tagger on."""

    data: Annotated[str, arg(metavar="FILE")] = ""
    """For taggers: a file of tagged sentences; none: the run's dev part."""
    column: Annotated[str, arg(metavar="NAME")] = ""
    """For taggers: column of the tags (as in training, if the format is the same)."""
    format: str = ""
    """For taggers: format of the file: conll, conllu or jsonl (as its name says, or as in training)."""

    def __post_init__(self) -> None:
        require_choice("format", self.format or "conll", get_args(Format)[1:])
        if not self.data and (self.column or self.format):
            raise ConfigurationError("`column` and `format` describe a file: name it with `data`", setting="data")


class TaggingInfo(TaskInfo):
    """Train a tagger: a label for every word, from sentences whose words have one each."""

    name, kind = "tag", "tagger"
    Settings = TaggingConfig
    Evaluation = TagEvaluation
    inherited: ClassVar[dict[str, str]] = {
        "model": "fixed",
        **{f"model.{name}": "default" for name in ("dropout", "crf")},
        **{f"model.{name}": "new" for name in ("vectors", "fix_vectors")},
        **{f"sentences.{name}": "default" for name in ("column", "format", "min_count")},
    }
    unit, counted = "sentences", "words"
    numbers = ("train", "dev", "words", "characters", "tags", "started", "parameters")

    config: TaggingConfig

    @classmethod
    def run_name(cls, settings: TaggingConfig) -> str:
        return f"{short_name(settings.sentences.data or 'tags')}-{cell_label(settings.model.cell)}"

    def facts(self) -> list[tuple[str, str]]:
        model, counts = self.config.model, self.counts
        directions = "read both ways" if model.bidirectional else "read forwards"
        start = f"; {counts['started']:,} words start from {model.vectors}" if model.vectors is not None else ""
        letters = f", letters in {model.character_hidden_size} units" if model.character_size else ""
        return [
            ("sentences", f"{counts['train']:,} to train on, {counts['dev']:,} to validate"),
            ("words", f"{counts['words']:,} words and {counts['characters']:,} characters{start}"),
            ("tags", f"{counts['tags']:,}, {self._how_scored()}"),
            (
                "model",
                f"{model.cell}, {model.num_layers} × {model.hidden_size} units {directions}{letters}; "
                f"{counts['parameters']:,} parameters, on {self.device}",
            ),
            *(("note", note) for note in self.noticed.notes),
        ]

    def _how_scored(self) -> str:
        if not self.crf:
            return "scored by a softmax"
        return f"scored by a CRF{f' that enforces {self.noticed.scheme.upper()}' if self.noticed.scheme else ''}"

    @property
    def crf(self) -> bool:
        """Whether a CRF scores sequences of tags."""
        return self.noticed.spans if self.config.model.crf is None else self.config.model.crf

    @cached_property
    def noticed(self) -> Noticed:
        """What was noticed of the tags when the run was created; RunError if it is missing or damaged."""
        path = self.run.path / TAGS_FILE
        try:
            stored = read_json(path)
            if isinstance(stored, dict) and stored.keys() < {"spans", "scheme", "notes"}:
                raise DataError(f"{path}: damaged, it lacks an entry")
            noticed: Noticed = from_json(Noticed, stored, str(path))
        except (DataError, RunError) as error:  # what is wrong in the file is no setting of the user's
            raise RunError(f"{error}") from error
        return noticed

    def uses(self) -> list[tuple[str, str]]:
        return [("tag", "unrolled tag {run} < TEXT")]
