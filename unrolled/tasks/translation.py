"""Translation: sentence pairs, an encoder and a decoder, beam search, and BLEU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn.functional import cross_entropy

from unrolled.data import Vocabulary, load_vocabulary
from unrolled.data.batch import Pair
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
from unrolled.data.tokens import Progress, learn_vocabulary
from unrolled.decoding import BeamSearch, search_for
from unrolled.errors import ConfigurationError, DataError, DecodingError, RunError
from unrolled.metrics.report import Report, Value
from unrolled.models import EncoderDecoder
from unrolled.settings import require
from unrolled.tasks.base import Task
from unrolled.tasks.pairs import PairsConfig, PairsEvaluation, TranslationConfig, TranslationInfo
from unrolled.tasks.translator import Translation, Translator, at_line, evaluate
from unrolled.training import Checkpoints, Run
from unrolled.training.checkpoint import require_numbers
from unrolled.training.run import TEMPORARY, write_atomically

SOURCE_VOCABULARY, TARGET_VOCABULARY, PAIRS_FILE = "vocabulary-source.json", "vocabulary.json", "pairs.safetensors"
#: The folder of the weights at the last few validations, for their average.
SNAPSHOTS = "snapshots"
Lines = tuple[Sequence[str], Sequence[str]]


def prepare(run: Run, config: PairsConfig, train: Lines, validation: Lines | None) -> None:
    """Learn the vocabularies and encode the pairs into a new run's directory.

    If `validation` is None, the last pairs of `train` are held out for validation.
    """
    if validation is None:
        cut = len(train[0]) - int(len(train[0]) * config.val_fraction)
        train, validation = (train[0][:cut], train[1][:cut]), (train[0][cut:], train[1][cut:])
    if not any(one.strip() and other.strip() for one, other in zip(*train, strict=True)):
        raise DataError("there is nothing to learn from: no line has text on both sides")

    def learn(*sides: Sequence[str]) -> Vocabulary:
        def blocks() -> Iterator[str]:
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


class TranslationTask(TranslationInfo, Task):
    """An encoder and a decoder with their pairs."""

    model: EncoderDecoder

    @classmethod
    def prepare(cls, run: Run, settings: TranslationConfig, progress: Progress = lambda what, share: None) -> None:
        """Learn the vocabularies and encode the pairs into a new run's directory."""
        pairs = settings.pairs
        for name in ("source", "target"):
            if not getattr(pairs, name):
                raise ConfigurationError(f"`{name}` is missing: a file of sentences, one per line", setting=name)
        train = read_line_pairs(pairs.source, pairs.target)
        prepare(run, pairs, train, read_line_pairs(pairs.val_source, pairs.val_target) if pairs.val_source else None)

    def read(self) -> None:
        self.target: Vocabulary = load_vocabulary(self.run.path / TARGET_VOCABULARY)
        separate = self.config.pairs.separate
        self.source: Vocabulary = load_vocabulary(self.run.path / SOURCE_VOCABULARY) if separate else self.target
        #: The token that ends a sentence, after the vocabulary's own tokens. In the decoder's input it starts one.
        self.source_end, self.end = len(self.source), len(self.target)
        self._pairs: dict[str, Pairs] = {}

    def build(self) -> EncoderDecoder:
        return self.config.model.build(self.source_end + 1, self.end + 1, not self.config.pairs.separate)

    def token_keys(self) -> dict[str, list[str | None]]:
        """Return the vocabulary's tokens and None, the end of a sentence; for each side if they are separate."""
        if not self.config.pairs.separate:
            return {"vocabulary": [*self.target.keys(), None]}
        return {f"{side} vocabulary": [*getattr(self, side).keys(), None] for side in ("source", "target")}

    def grown(self, tokens: str) -> EncoderDecoder:
        source = self.source_end + 1 + (tokens != "target vocabulary")
        target = self.end + 1 + (tokens != "source vocabulary")
        return self.config.model.build(source, target, not self.config.pairs.separate)

    def load(self, which: str = "best") -> Self:
        """Load a checkpoint or the mean of the last validations' weights, and enter evaluation mode."""
        if which != "average":
            return super().load(which)
        self._load_average()
        self.model.eval()
        return self

    def _load_average(self) -> None:
        files = sorted((self.run.path / SNAPSHOTS).glob("*.safetensors"))
        if not files:
            said = f"{self.run.path}: no weights to average: it was trained with `average=0`, or is not trained yet"
            raise RunError(said, setting="average")
        checkpoints = Checkpoints(self.run)
        if last := checkpoints.find("last"):
            checkpoints.check_vocabularies(last)
        try:
            weights = [load_file(file) for file in files]
            mean = {name: sum(one[name] for one in weights) / len(weights) for name in weights[0]}
            with torch.no_grad():
                for name, parameter in self.model.named_parameters():
                    parameter.copy_(mean[name])  # type: ignore[arg-type]
        except (SafetensorError, KeyError, RuntimeError) as error:
            raise RunError(f"{files[0].parent}: does not fit this run's model ({error})") from error
        require_numbers(self.model, f"{self.run.path}: the average of the last validations")

    def _keep_snapshot(self, step: int) -> None:
        """Keep the current weights under their step, the same in a resumed run."""
        count = self.config.training.average
        if not count:
            return
        folder = self.run.path / SNAPSHOTS
        folder.mkdir(exist_ok=True)
        file = folder / f"step-{step:08d}.safetensors"
        for left in folder.glob(f".*{TEMPORARY}"):  # left by a process that was killed
            left.unlink()
        weights = {name: parameter.detach().cpu().contiguous() for name, parameter in self.model.named_parameters()}
        write_atomically(file, save(weights))
        others = sorted(folder.glob("*.safetensors"))
        # Later steps were written by a killed process, after the checkpoint that the run resumed from.
        for old in others[: max(0, others.index(file) + 1 - count)] + others[others.index(file) + 1 :]:
            old.unlink()

    def verify(self) -> None:
        """Raise RunError if the run's pairs are not those that were encoded."""
        for part in ("train", "validation"):
            pairs = self.pairs(part)
            for sentences, size in ((pairs.source, len(self.source)), (pairs.target, len(self.target))):
                if not sentences.fit(size):
                    raise RunError(f"{self.run.path / PAIRS_FILE}: damaged, a token is not in the vocabulary")

    def pairs(self, part: str) -> Pairs:
        """Return a part of the run's pairs, "train" or "validation"."""
        self._pairs = self._pairs or load_pairs(self.run.path / PAIRS_FILE)
        return self._pairs[part]

    # -- the loop's view -----------------------------------------------------------------------------------------

    def epoch(self, number: int) -> PairBatches:
        """Return pass `number` over the training pairs."""
        training = self.config.training
        ends = (self.source_end, self.end)
        return PairBatches(self.pairs("train"), training.batch_size, ends, (training.seed, number))

    def loss(self, batch: Pair, state: None = None) -> tuple[Tensor, None]:
        """Return the cross-entropy, summed over the targets' tokens, with label smoothing in training, in nats."""
        training, inputs, targets = self.config.training, batch.inputs, batch.targets
        counted = targets >= 0
        given = torch.cat([targets.new_full((1, targets.size(1)), self.end), targets[:-1]])
        if self.model.training and training.scheduled_sampling:
            given = self._with_guesses(inputs, given, training.scheduled_sampling)
        logits = self.model(inputs, given, counted)
        smoothing = training.label_smoothing if self.model.training else 0.0
        return cross_entropy(logits, targets[counted], reduction="sum", label_smoothing=smoothing), None

    @torch.no_grad()
    def _with_guesses(self, inputs: Tensor, given: Tensor, chance: float) -> Tensor:
        """Replace some of the decoder's inputs by its own predictions there, given the reference before them.

        Source: Bengio et al. 2015, "Scheduled Sampling", in two passes (Mihaylova & Martins 2019), so that the decoder
        still runs over all steps at once.
        """
        guesses = torch.cat([given[:1], self.model(inputs, given)[:-1].argmax(-1)])
        replaced = (torch.rand(given.shape, device=given.device) < chance) & (given >= 0)
        return torch.where(replaced, guesses, given)

    @torch.no_grad()
    def validate(self, step: int | None = None) -> float | None:
        """Return the cross-entropy per token on the validation pairs; with `step`, keep the weights for the average."""
        if step is not None:
            self._keep_snapshot(step)
        pairs = self.pairs("validation")
        return self.total_nats(pairs) / (len(pairs.target.tokens) + len(pairs)) if len(pairs) else None

    @torch.no_grad()
    def total_nats(self, pairs: Pairs, batch_size: int = 64) -> float:
        """Return `-Σ ln P` of the targets' tokens and ends, given their sources."""
        batches = PairBatches(pairs, batch_size, (self.source_end, self.end), (0,))
        return sum(float(self.loss(batches.batch(k).to(self.device))[0]) for k in range(len(batches)))

    @torch.no_grad()
    def preview(self, step: int) -> str:
        """Return three sentences, from the validation pairs if there are any, with references and outputs."""
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

    def count(self) -> dict[str, int]:
        parts = {name: len(self.pairs(name)) for name in ("train", "validation")}
        return {**parts, "source": self.source_end + 1, "target": self.end + 1}

    # -- use -----------------------------------------------------------------------------------------------------

    @property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary of the outputs. That of the inputs is `source`, a different one only with `separate`."""
        return self.target

    def translate(
        self,
        sentences: Sequence[str],
        *,
        beam: int = 5,
        n_best: int | None = None,
        length_penalty: float = 1.0,
        min_length: int = 0,
        no_repeat: int = 0,
        groups: int | None = None,
        diversity: float = 0.0,
    ) -> list[str] | list[list[Translation]]:
        """Return the best translation of each sentence; with `n_best`, that many for each, with log P and score.

        The options and results are those of `unrolled translate`. `unrolled.tasks.translator.Translator` translates
        with an ensemble of runs.
        Raises ConfigurationError if an option is out of range or `sentences` is a single string. Raises DecodingError,
        whose `sentence` is the index in the list, if the model's output is NaN.
        """
        if isinstance(sentences, str):
            raise ConfigurationError("`sentences` must be a list of strings, not one string", setting="sentences")
        how = search_for(
            beam=beam,
            n_best=1 if n_best is None else n_best,
            length_penalty=length_penalty,
            min_length=min_length,
            no_repeat=no_repeat,
            groups=groups,
            diversity=diversity,
        )
        found = Translator([self]).translate(sentences, how)
        return [some[0].text for some in found] if n_best is None else found

    def evaluate(self, asked: PairsEvaluation) -> Report:
        """Report BLEU, chrF and perplexity on the files that `asked` names, or on the validation pairs."""
        if bool(asked.source) != bool(asked.target):
            said = "`source` and `target` belong together: give both or none"
            raise ConfigurationError(said, setting=("source", "target"))
        require(asked.resamples >= 0, "resamples", "0 (none) or above", asked.resamples)
        how = BeamSearch(beam=asked.beam, length_penalty=asked.length_penalty)
        lines = read_line_pairs(asked.source, asked.target) if asked.source else None
        try:
            score = evaluate(self, how, lines, asked.resamples)
        except DecodingError as error:
            raise at_line(error, asked.source or f"{self.run.path}: validation pairs") from error
        self.require_number(score.perplexity, asked.source or "validation pairs")
        data = f"{asked.source}, {asked.target}" if asked.source else "validation pairs"
        level = self.config.pairs.level
        values = (
            Value("beam", asked.beam),
            Value("lines", score.lines),
            *(
                Value(name, found.score, label, str(found), found.interval, found.signature)
                for name, label, found in (("bleu", "BLEU", score.bleu), ("chrf", "chrF2", score.chrf))
            ),
            Value(
                "perplexity",
                score.perplexity,
                "perplexity",
                f"{score.perplexity:.3f} per token of the {level} vocabulary",
            ),
            Value("seconds", score.seconds),
        )
        speed = f"beam {asked.beam}, {score.lines / score.seconds:.0f} lines/s"
        return Report(data, f"{data}: {score.lines:,} lines, {speed}", values)


def create_run(path: Path, config: TranslationConfig) -> TranslationTask:
    """Create a run directory with its pairs; nothing remains of it after an error."""
    return TranslationTask.create(path, config)
