"""Translation: sentence pairs, an encoder and a decoder, beam search, and BLEU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cross_entropy
from tyro.conf import Suppress, arg

from unrolled.cells import CELLS, find_cell
from unrolled.data import Vocabulary, load_vocabulary
from unrolled.data.pairs import (
    PairBatches,
    Pairs,
    decode_line,
    encode_pairs,
    load_pairs,
    pad,
    read_line_pairs,
    save_pairs,
)
from unrolled.data.tokens import LEVELS, learn_vocabulary
from unrolled.decoding import BeamSearch
from unrolled.errors import ConfigurationError, DataError, RunError
from unrolled.metrics import perplexity
from unrolled.models import EncoderDecoder
from unrolled.training import Checkpoints, Run, TrainingConfig
from unrolled.training.config import from_json, require, require_choice, to_json
from unrolled.training.optimisation import find_device

TASK = "translation"
SOURCE_VOCABULARY, TARGET_VOCABULARY, PAIRS_FILE = "vocabulary-source.json", "vocabulary.json", "pairs.safetensors"
#: The weights at the last few validations, for their average.
SNAPSHOTS = "snapshots"
Which = Literal["best", "last", "average"]


@dataclass(frozen=True)
class PairsConfig:
    """Sentence pairs."""

    source: Annotated[str, arg(metavar="FILE")] = ""
    """Sentences to translate, one a line; plain text or gzip."""
    target: Annotated[str, arg(metavar="FILE")] = ""
    """Their translations, line by line."""
    val_source: Annotated[str, arg(metavar="FILE")] = ""
    """Sentences to validate on; none: the last --val-fraction of the pairs."""
    val_target: Annotated[str, arg(metavar="FILE")] = ""
    """Their translations."""
    val_fraction: float = 0.02
    """Share of the pairs to validate on, where no --val-source is given; 0: none."""
    level: str = "bpe"
    """bpe, word, char or byte."""
    vocab_size: Annotated[int | None, arg(metavar="N")] = None
    """Size of the BPE vocabulary (4000), or most words to keep (word: all)."""
    min_count: int = 2
    """Words that occur less often become <unk>."""
    separate: bool = False
    """A vocabulary and an embedding for each side, in place of one for both."""
    max_length: int = 100
    """Pairs with a longer sentence, in tokens, are not trained on."""

    def __post_init__(self) -> None:
        require_choice("level", self.level, LEVELS)
        require(self.min_count >= 1, "min_count", "at least 1", self.min_count)
        require(self.max_length >= 1, "max_length", "at least 1", self.max_length)
        require(0 <= self.val_fraction < 1, "val_fraction", "from 0 to below 1", self.val_fraction)
        if self.vocab_size is not None:
            require(2 <= self.vocab_size <= 1 << 24, "vocab_size", "from 2 to 2^24", self.vocab_size)
            if self.level in ("char", "byte"):
                raise ConfigurationError(f"--vocab-size is for words and BPE; at level {self.level} it has no meaning")
        if bool(self.val_source) != bool(self.val_target):
            raise ConfigurationError("--val-source and --val-target belong together: give both or none")

    @property
    def size(self) -> int | None:
        """The bound on the vocabulary."""
        return 4000 if self.level == "bpe" and self.vocab_size is None else self.vocab_size


@dataclass(frozen=True)
class ModelConfig:
    """Model."""

    cell: Annotated[str, arg(metavar="NAME", help=f"The encoder's cell, one of {', '.join(CELLS)}.")] = "gru"
    decoder_cell: Annotated[str | None, arg(metavar="NAME")] = None
    """The decoder's cell (as --cell)."""
    hidden_size: int = 256
    """Units a layer, in each direction of the encoder and in the decoder."""
    num_layers: int = 1
    """Layers of the encoder, and of the decoder."""
    embedding_size: int = 256
    """Width of the embeddings."""
    attention: bool = True
    """Let the decoder attend to the whole source (Bahdanau); without, one vector a layer joins the two (Sutskever)."""
    bidirectional: bool | None = None
    """Read the source both ways (with --attention yes, without no)."""
    reverse: bool = False
    """Read the source's words from the last to the first."""
    dropout: float = 0.3
    """On embeddings, between layers, on what is attended to, and before the readout."""
    forget_bias: float = 1.0
    """First bias of the forget gate, in cells that have one."""

    def __post_init__(self) -> None:
        find_cell(self.cell)
        if self.decoder_cell is not None:
            find_cell(self.decoder_cell)
        for name, high in (("hidden_size", 65_536), ("embedding_size", 65_536), ("num_layers", 1000)):
            value = getattr(self, name)
            require(1 <= value <= high, name, f"from 1 to {high:,}", value)
        require(0 <= self.dropout < 1, "dropout", "from 0 to below 1", self.dropout)
        require(abs(self.forget_bias) <= 1000, "forget_bias", "from -1000 to 1000", self.forget_bias)

    def build(self, source_size: int, target_size: int, shared: bool) -> EncoderDecoder:
        return EncoderDecoder(
            source_size,
            target_size,
            self.cell,
            decoder_cell=self.decoder_cell,
            embedding_size=self.embedding_size,
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            bidirectional=self.attention if self.bidirectional is None else self.bidirectional,
            reverse=self.reverse,
            attention=self.attention,
            dropout=self.dropout,
            shared=shared,
            forget_bias=self.forget_bias,
        )


@dataclass(frozen=True)
class SentenceTraining(TrainingConfig):
    """Training."""

    batch_size: int = 64
    """Sentence pairs an update."""
    learning_rate: float = 2e-3
    """Peak learning rate."""
    eval_every: int = 450
    """Updates between two validations, each with a checkpoint."""
    sample_every: int = 450
    """Updates between two samples; 0: none."""
    label_smoothing: float = 0.1
    """Share of the probability that training spreads over all tokens (Szegedy et al. 2016)."""
    scheduled_sampling: float = 0.0
    """Chance that the decoder, in training, reads its own guess in place of the reference's word."""
    average: int = 3
    """Keep the weights of this many last validations, for `--checkpoint average`; 0: none."""
    seq_length: Suppress[int] = 1
    backward_length: Suppress[int] = 0
    carry_state: Suppress[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("label_smoothing", "scheduled_sampling"):
            require(0 <= getattr(self, name) < 1, name, "from 0 to below 1", getattr(self, name))
        require(self.average >= 0, "average", "0 (none) or above", self.average)


@dataclass(frozen=True)
class TranslationConfig:
    """All settings of a translation run."""

    pairs: PairsConfig = field(default_factory=PairsConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: SentenceTraining = field(default_factory=SentenceTraining)


#: The tasks whose runs are pairs with an encoder and a decoder, and the settings of each.
TASKS: dict[str, type[TranslationConfig]] = {TASK: TranslationConfig}


def read_config(run: Run) -> TranslationConfig:
    """The settings of a run; RunError where it is a run of something else."""
    if run.task not in TASKS:
        raise RunError(f"{run.path}: a run of task {run.task!r}, not a {TASK}")
    return from_json(TASKS[run.task], run.config, str(run.path / "config.json"))


Lines = tuple[Sequence[str], Sequence[str]]


def prepare(run: Run, config: PairsConfig, train: Lines, validation: Lines) -> None:
    """Learn the vocabularies and encode the pairs into a new run's directory."""

    def learn(*sides: Sequence[str]) -> Vocabulary:
        def blocks():
            for side in sides:
                yield "".join(f"{' ' if config.level == 'bpe' else ''}{' '.join(line.split())}\n" for line in side)

        return learn_vocabulary(config.level, blocks, size=config.size, min_count=config.min_count)

    if config.separate:
        source, target = learn(train[0]), learn(train[1])
        source.save(run.path / SOURCE_VOCABULARY)
    else:
        source = target = learn(*train)
    target.save(run.path / TARGET_VOCABULARY)
    parts = {
        "train": encode_pairs(train, source, target, config.max_length),
        "validation": encode_pairs(validation, source, target, config.max_length),
    }
    save_pairs(run.path / PAIRS_FILE, parts)


class TranslationTask:
    """A run's encoder and decoder with its pairs: what the training loop and the commands work on."""

    def __init__(self, run: Run, device: str | None = None) -> None:
        """Open what `prepare` made; the weights are fresh, drawn from the run's seed, until a checkpoint is loaded."""
        self.run = run
        self.config = read_config(run)
        self.target: Vocabulary = load_vocabulary(run.path / TARGET_VOCABULARY)
        separate = self.config.pairs.separate
        self.source: Vocabulary = load_vocabulary(run.path / SOURCE_VOCABULARY) if separate else self.target
        #: The mark that ends a sentence, behind the vocabulary's own tokens; in the decoder's input it begins one.
        self.source_end, self.end = len(self.source), len(self.target)
        self.device = find_device(device or self.config.training.device)
        torch.manual_seed(self.config.training.seed)
        self.model = self.config.model.build(self.source_end + 1, self.end + 1, not separate).to(self.device)
        self._pairs: dict[str, Pairs] = {}

    def load(self, which: Which = "best") -> TranslationTask:
        """Put a checkpoint's weights in, or the mean of the last validations', and the model into evaluation mode."""
        if which == "average":
            self._load_average()
        else:
            Checkpoints(self.run).load_weights(which, self.model)
        self.model.eval()
        return self

    def _load_average(self) -> None:
        files = sorted((self.run.path / SNAPSHOTS).glob("*.safetensors"))
        if not files:
            raise RunError(f"{self.run.path}: no weights to average: it was trained with --average 0, or not yet")
        try:
            weights = [load_file(file) for file in files]
            mean = {name: sum(one[name] for one in weights) / len(weights) for name in weights[0]}
            with torch.no_grad():
                for name, parameter in self.model.named_parameters():
                    parameter.copy_(mean[name])  # type: ignore[arg-type]
        except (SafetensorError, KeyError, RuntimeError) as error:
            raise RunError(f"{files[0].parent}: does not fit this run's model ({error})") from error

    def _keep_snapshot(self) -> None:
        """Keep these weights under the number of the last logged step, which a resumed run comes by again."""
        count = self.config.training.average
        if not count:
            return
        folder = self.run.path / SNAPSHOTS
        folder.mkdir(exist_ok=True)
        records = self.run.metrics()
        file = folder / f"step-{records[-1]['step'] if records else 0:08d}.safetensors"
        temporary = file.with_suffix(".tmp")
        save_file(
            {name: parameter.detach().cpu().contiguous() for name, parameter in self.model.named_parameters()},
            temporary,
        )
        temporary.replace(file)
        # What a killed run did behind its last checkpoint is done again, and comes by these names again.
        for old in sorted(folder.glob("*.safetensors"))[:-count]:
            old.unlink()

    def pairs(self, part: str) -> Pairs:
        """The run's pairs: "train" or "validation"."""
        self._pairs = self._pairs or load_pairs(self.run.path / PAIRS_FILE)
        return self._pairs[part]

    # -- the loop's view -----------------------------------------------------------------------------------------

    def epoch(self, number: int) -> PairBatches:
        """Pass `number` over the training pairs."""
        training = self.config.training
        ends = (self.source_end, self.end)
        return PairBatches(self.pairs("train"), training.batch_size, ends, (training.seed, number))

    def loss(self, inputs: Tensor, targets: Tensor, state: Any = ()) -> tuple[Tensor, Any]:
        """Cross-entropy summed over the tokens of `targets [T, B]`, smoothed in training, in nats."""
        training = self.config.training
        counted = targets >= 0
        given = torch.cat([targets.new_full((1, targets.size(1)), self.end), targets[:-1]])
        if self.model.training and training.scheduled_sampling:
            given = self._with_guesses(inputs, given, training.scheduled_sampling)
        logits = self.model(inputs, given, counted)
        smoothing = training.label_smoothing if self.model.training else 0.0
        return cross_entropy(logits, targets[counted], reduction="sum", label_smoothing=smoothing), ()

    @torch.no_grad()
    def _with_guesses(self, inputs: Tensor, given: Tensor, chance: float) -> Tensor:
        """The decoder's inputs with some replaced by what it would have said there, given the reference before.

        Source: Bengio et al. 2015, "Scheduled Sampling"; in two passes (Mihaylova & Martins 2019), so that the decoder
        still runs over all steps at once.
        """
        guesses = torch.cat([given[:1], self.model(inputs, given)[:-1].argmax(-1)])
        replaced = (torch.rand(given.shape, device=given.device) < chance) & (given >= 0)
        return torch.where(replaced, guesses, given)

    @torch.no_grad()
    def validate(self) -> float | None:
        """Cross-entropy a token on the validation pairs."""
        self._keep_snapshot()
        pairs = self.pairs("validation")
        return self.total_nats(pairs) / (len(pairs.target.tokens) + len(pairs)) if len(pairs) else None

    @torch.no_grad()
    def total_nats(self, pairs: Pairs, batch_size: int = 64) -> float:
        """`-Σ ln P` of the targets' tokens and ends, given their sources."""
        batches = PairBatches(pairs, batch_size, (self.source_end, self.end), (0,))
        chunks = (batches.chunk(number) for number in range(len(batches)))
        return sum(float(self.loss(x.to(self.device), y.to(self.device))[0]) for x, y in chunks)

    @torch.no_grad()
    def sample(self, step: int) -> str:
        """Three sentences, of those to validate on where there are any, with their references and outputs."""
        part = next(name for name in ("validation", "train") if len(self.pairs(name)))
        pairs = self.pairs(part)
        chosen = [pairs.source[k] for k in range(min(3, len(pairs)))]
        source = pad(chosen, self.source_end).to(self.device)
        limits = torch.tensor([2 * len(sentence) + 10 for sentence in chosen], device=self.device)
        first = torch.full((len(chosen),), self.end, device=self.device)
        found = BeamSearch(beam=1).search(self.model, self.model.start(source), first, self.end, limits)
        blocks = []
        for k, (best,) in enumerate(found):
            texts = (
                decode_line(self.source, chosen[k].tolist()),
                decode_line(self.target, pairs.target[k].tolist()),
                decode_line(self.target, best.tokens),
            )
            blocks.append("\n".join(f"{mark} {text}" for mark, text in zip("<=>", texts, strict=True)))
        return "\n\n".join(blocks)

    def facts(self) -> list[tuple[str, str]]:
        """What a person may want to know of the run, by name."""
        config, train, validation = self.config, self.pairs("train"), self.pairs("validation")
        sizes = (
            f"{len(self.target):,}" if not config.pairs.separate else f"{len(self.source):,} and {len(self.target):,}"
        )
        model = config.model
        decoder = "" if model.decoder_cell in (None, model.cell) else f" and {model.decoder_cell}"
        joined = "with attention" if model.attention else "joined by a fixed vector"
        read = " read both ways" if self.model.encoder.bidirectional else ""
        read += ", source reversed" if model.reverse else ""
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        return [
            ("pairs", f"{len(train):,} to train on, {len(validation):,} to validate"),
            (
                "tokens",
                f"{sizes} in the {config.pairs.level} {'vocabularies' if config.pairs.separate else 'vocabulary'}",
            ),
            (
                "model",
                f"{model.cell}{decoder}, {model.num_layers} × {model.hidden_size} units{read}, {joined}; "
                f"{parameters:,} parameters, on {self.device}",
            ),
        ]

    def describe(self, loss: float) -> str:
        return f"loss {loss:.4f} · perplexity {perplexity(loss):,.2f}"


def create_run(path: Path, config: TranslationConfig) -> TranslationTask:
    """A new run directory with its pairs; nothing is left behind where that fails."""
    pairs = config.pairs
    for name in ("source", "target"):
        if not getattr(pairs, name):
            raise ConfigurationError(f"--{name} is missing: a file of sentences, one a line")
    train = read_line_pairs(pairs.source, pairs.target)
    validation = read_line_pairs(pairs.val_source, pairs.val_target) if pairs.val_source else None
    return create_pairs_run(path, TASK, config, train, validation)


def create_pairs_run(
    path: Path, task_name: str, config: TranslationConfig, train: Lines, validation: Lines | None
) -> TranslationTask:
    """A new run on these pairs; without any to validate on, the last of those to train on are kept for it."""
    with Run.create(path, task_name, to_json(config)) as run:
        find_device(config.training.device)
        if validation is None:
            cut = len(train[0]) - int(len(train[0]) * config.pairs.val_fraction)
            train, validation = (train[0][:cut], train[1][:cut]), (train[0][cut:], train[1][cut:])
        if not any(one.strip() and other.strip() for one, other in zip(*train, strict=True)):
            raise DataError("there is nothing to learn from: no line has text on both sides")
        prepare(run, config.pairs, train, validation)
        task = TranslationTask(run)
        task.epoch(0)
    return task
