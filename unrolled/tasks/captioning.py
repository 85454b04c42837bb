"""Captioning: pictures and sentences, a decoder over an image encoder's features, and the scores of captions."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from unrolled.data.caption_batches import CaptionBatch, CaptionBatches, EncodedCaptions, as_floats
from unrolled.data.caption_tokens import caption_tokens
from unrolled.data.tag_batches import Index
from unrolled.data.tokens import Progress
from unrolled.decoding import BeamSearch
from unrolled.errors import ConfigurationError, RunError
from unrolled.metrics.cider import CiderD
from unrolled.metrics.report import Report
from unrolled.models.captioner import Captioner, PictureFeatures
from unrolled.tasks.base import Task
from unrolled.tasks.caption_features import Features, features_again, require_encoder
from unrolled.tasks.captioning_data import (
    CAPTIONS_FILE,
    MOMENTS_FILE,
    PICTURES_FILE,
    WORDS_FILE,
    Pictures,
    prepare,
    read_moments,
)
from unrolled.tasks.captioning_settings import (
    CaptionEvaluation,
    CaptioningConfig,
    CaptioningInfo,
)
from unrolled.tasks.describer import Caption, Describer
from unrolled.tasks.self_critical import SelfCritical
from unrolled.tasks.vectors import start_embedding
from unrolled.training import Run

if TYPE_CHECKING:
    from unrolled.models.image_encoders import ImageEncoder

#: The pictures whose features are read at once in validation.
_AT_ONCE = 128


class CaptioningTask(CaptioningInfo, Task):
    """A captioner with its pictures and captions."""

    model: Captioner

    @classmethod
    def prepare(cls, run: Run, settings: CaptioningConfig, progress: Progress = lambda what, share: None) -> None:
        """Encode the pictures and their captions into a new run's directory."""
        if settings.training.self_critical:
            said = "`self_critical` improves a trained captioner: name its run with `init_from`"
            raise ConfigurationError(said, setting=("self_critical", "init_from"))
        prepare(run, settings, progress)

    @classmethod
    def prepare_from(cls, source: Task, run: Run, settings: CaptioningConfig, progress: Progress) -> None:
        """Prepare a run that starts from another captioner; for self-critical learning with the words of that one."""
        assert isinstance(source, CaptioningTask)
        prepare(run, settings, progress, source.words if settings.training.self_critical else None)

    def read(self) -> None:
        self.words = Index.load(self.run.path / WORDS_FILE)
        #: The token that ends a caption, after all words. In the decoder's input it starts one.
        self.end = len(self.words)

    def build(self) -> Captioner:
        return self._build(self.end + 1)

    def _build(self, size: int) -> Captioner:
        noticed = self.noticed
        model = self.config.model.build(size, noticed.vector_size, noticed.grid_size, 0)
        try:
            model.normalise_by(read_moments(self.run.path / MOMENTS_FILE))
        except (KeyError, RuntimeError) as error:  # of another width
            raise RunError(f"{self.run.path / MOMENTS_FILE}: does not fit the features ({error})") from error
        if self.config.captions.vectors is not None and size == self.end + 1:
            start_embedding(model.embedding, self.run.path, fixed=self.config.captions.fix_vectors)
        return model

    def token_keys(self) -> dict[str, Sequence[Hashable]]:
        """Return the words and None, the end of a caption."""
        return {"words": [*self.words.strings, None]}

    def grown(self, tokens: str) -> Captioner:
        return self._build(self.end + 2)

    # -- data ----------------------------------------------------------------------------------------------------

    @cached_property
    def pictures(self) -> Pictures:
        """The pictures of the run."""
        return Pictures.load(self.run.path / PICTURES_FILE)

    @property
    def dev(self) -> range:
        """The numbers of the pictures held out."""
        return range(self.pictures.train, len(self.pictures))

    @cached_property
    def captions(self) -> EncodedCaptions:
        """The captions of the run's pictures, as tokens."""
        captions = EncodedCaptions.load(self.run.path / CAPTIONS_FILE)
        if len(captions) != len(self.pictures) or not captions.fit(self.end):
            raise RunError(f"{self.run.path / CAPTIONS_FILE}: its captions do not fit the words or the pictures")
        return captions

    @property
    def features(self) -> Features:
        """The features of the run's pictures, by row."""
        return self._features[0]

    @property
    def feature_rows(self) -> np.ndarray:
        """The rows of the run's pictures in `features`, `[N]`."""
        return self._features[1]

    @cached_property
    def _features(self) -> tuple[Features, np.ndarray]:
        pictures = self.pictures
        return features_again(
            self.config.captions, self.noticed, pictures.files, pictures.keys, self.run.path / PICTURES_FILE
        )

    def _read_features(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        features, rows = self._features
        wanted = rows[pictures]
        return features.vectors(wanted), features.grids(wanted) if self.config.model.reads_grid else None

    def features_of(self, pictures: Sequence[int]) -> PictureFeatures:
        """Return the features of the run's pictures with these numbers."""
        return self.as_features(*self._read_features(np.asarray(pictures)))

    def as_features(self, vectors: np.ndarray, grids: np.ndarray | None) -> PictureFeatures:
        """Return stored features as the model reads them."""
        grid = None if grids is None else as_floats(grids).to(self.device)
        return PictureFeatures(as_floats(vectors).to(self.device), grid)

    def verify(self) -> None:
        """Raise RunError if the run's captions are not those that were encoded."""
        _ = self.captions

    # -- the loop's view -----------------------------------------------------------------------------------------

    def epoch(self, number: int) -> CaptionBatches:
        training = self.config.training
        return CaptionBatches(
            self.captions,
            self._read_features,
            range(self.pictures.train),
            training.batch_size,
            training.captions_per_picture,
            self.end,
            (training.seed, number),
        )

    def loss(self, batch: CaptionBatch, state: None = None) -> tuple[Tensor, None]:
        """Return the loss, summed over the words, in nats: the cross-entropy, or the self-critical one in training."""
        training, features = self.config.training, PictureFeatures(batch.vectors, batch.grids)
        if self.model.training and training.self_critical:
            pictures = batch.pictures.tolist()
            return self._self_critical.loss(self.model, features, pictures, training.captions_per_picture), None
        targets = batch.targets.flatten(1)
        inputs = torch.cat([targets.new_full((1, targets.size(1)), self.end), targets[:-1]])
        if self.model.training and training.scheduled_sampling:
            inputs = self._with_guesses(features, inputs, training.scheduled_sampling)
        smoothing = training.label_smoothing if self.model.training else 0.0
        loss = self.model.loss(features, inputs, targets, label_smoothing=smoothing)
        if self.model.training and training.weight_penalty:
            squares = sum(weight.square().sum() for weight in self.model.parameters())
            loss = loss + training.weight_penalty * batch.count * squares
        return loss, None

    @cached_property
    def _self_critical(self) -> SelfCritical:
        references = [[one.tolist() for one in self.captions[k]] for k in range(self.pictures.train)]
        return SelfCritical(references, self.end, self.config.captions.max_length, self.config.training.baseline)

    @torch.no_grad()
    def _with_guesses(self, features: PictureFeatures, inputs: Tensor, chance: float) -> Tensor:
        """Replace some inputs by the model's own predictions there, given the reference before them.

        Sources: Bengio et al. 2015, "Scheduled Sampling"; in two passes, Mihaylova & Martins 2019.
        """
        guesses = torch.cat([inputs[:1], self.model(features, inputs)[:-1].argmax(-1)])
        replaced = (torch.rand(inputs.shape, device=inputs.device) < chance) & (inputs >= 0)
        return torch.where(replaced, guesses, inputs)

    def validate(self, step: int | None = None) -> float | None:
        """Return minus the CIDEr-D of greedy captions of the pictures held out, so that less is better."""
        if len(self.dev) < 2:
            return None
        found = [some[0].words for some in self.describe_own(list(self.dev), BeamSearch(beam=1))]
        return -float(self._dev_cider.score(found, self._dev_references).mean())

    @cached_property
    def _dev_references(self) -> list[list[tuple[str, ...]]]:
        return [[tuple(caption_tokens(text)) for text in self.pictures.captions[k]] for k in self.dev]

    @cached_property
    def _dev_cider(self) -> CiderD:
        return CiderD(self._dev_references)

    @torch.no_grad()
    def dev_loss(self) -> float | None:
        """Return the cross-entropy per word of the pictures held out, in nats; None if there are none."""
        if not len(self.dev):
            return None
        training = self.config.training
        batches = CaptionBatches(
            self.captions, self._read_features, self.dev, 32, training.captions_per_picture, self.end, (0,)
        )
        self.model.eval()
        total, count = 0.0, 0
        for k in range(len(batches)):
            batch = batches.batch(k).to(self.device)
            total, count = total + float(self.loss(batch)[0]), count + batch.count
        return total / count

    def describe_own(self, pictures: Sequence[int], how: BeamSearch, others: Sequence[Any] = ()) -> list[list[Caption]]:
        """Return the captions of the run's pictures with these numbers. others: the other runs of an ensemble."""
        training = self.model.training
        try:
            describer, found = Describer([self, *others]), []
            for k in range(0, len(pictures), _AT_ONCE):
                found += describer.describe(self.features_of(pictures[k : k + _AT_ONCE]), how)
        finally:
            self.model.train(training)
        return found

    def preview(self, step: int) -> str:
        """Return greedy captions of three pictures held out, or of training, with a reference of each."""
        part = self.dev or range(self.pictures.train)
        chosen = [part[(step * 7 + k) % len(part)] for k in range(min(3, len(part)))]
        found = self.describe_own(chosen, BeamSearch(beam=1))
        return "\n".join(
            f"{self.pictures.names[k]}\n  = {self.pictures.captions[k][0]}\n  > {some[0].text}"
            for k, some in zip(chosen, found, strict=True)
        )

    def count(self) -> dict[str, int]:
        train = self.pictures.train
        return {
            "train": train,
            "dev": len(self.dev),
            "captions": int(self.captions.first[train]),
            "words": self.end + 1,
        }

    # -- use -----------------------------------------------------------------------------------------------------

    def caption(
        self, pictures: Sequence[str | Path], *, n_best: int | None = None, prefix: str = "", **options: Any
    ) -> list[str] | list[list[Caption]]:
        """Return the best caption of each picture file; with `n_best`, that many of each, with log P and score.

        options: those of `BeamSearch`; by default the beam is 3, or `n_best` if that is more, and the length penalty
        0.7. Raises DataError if a picture cannot be read, and ConfigurationError if an option is out of range.
        """
        if isinstance(pictures, str | Path):
            raise ConfigurationError("`pictures` must be a list of files, not one file", setting="pictures")
        options = {"beam": max(3, n_best or 1), "length_penalty": 0.7, **options}
        found = Describer([self]).describe(self.encode(pictures), BeamSearch(n_best=n_best or 1, **options), prefix)
        return [some[0].text for some in found] if n_best is None else found

    def encode(self, pictures: Sequence[str | Path]) -> PictureFeatures:
        """Return the features of picture files; DataError if one cannot be read."""
        from unrolled.data.pictures import read_picture

        return self.encode_arrays([read_picture(path) for path in pictures], self.config.model.reads_grid)

    def encode_arrays(self, pictures: Sequence[np.ndarray], grids: bool) -> PictureFeatures:
        """Return the features of pictures `[H, W, 3]` uint8 of any sizes; without grids if these are not wanted.

        Raises ConfigurationError if the run was trained on given features.
        """
        from unrolled.data.pictures import scaled

        size = self.encoder.input_size
        arrays = np.stack([scaled(picture, size) for picture in pictures]) if pictures else np.zeros((0, size, size, 3))
        vectors, found = self.encoder.encode(arrays.astype(np.uint8))
        return PictureFeatures(vectors.to(self.device), found.to(self.device) if grids else None)

    @cached_property
    def encoder(self) -> ImageEncoder:
        """The image encoder of the run."""
        from unrolled.models.image_encoders import image_encoder

        encoder = image_encoder(require_encoder(self.noticed, self.run.path))
        self.require_signature(encoder.signature)
        return encoder

    def require_signature(self, signature: str) -> None:
        """Raise RunError if these are not the features that the run was trained on."""
        if signature != self.noticed.signature:
            raise RunError(f"{self.run.path}: trained on features of {self.noticed.signature}, not of {signature}")

    def evaluate(self, asked: CaptionEvaluation) -> Report:
        """Report the scores of captions of `asked.data`, or of the pictures held out, with those of the baselines."""
        from unrolled.tasks.caption_scoring import score_run

        return score_run(self, asked)


def create_run(path: Path, config: CaptioningConfig) -> CaptioningTask:
    """Create a run directory with its captions; nothing remains of it after an error."""
    return CaptioningTask.create(path, config)
