"""Audio as frames: recordings of any rate, log-mel energies or MFCC, of a whole recording or as the sound comes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from unrolled.errors import ConfigurationError, DataError
from unrolled.settings import require, require_choice

#: The endings of the names of recordings.
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".sph")
#: Seconds from one frame to the next, and the length of the window of a frame.
FRAME_SHIFT, FRAME_LENGTH = 0.010, 0.025
#: Kaldi's filters and floors are meant for samples of 16 bits.
_FULL_SCALE = 32768.0


@dataclass(frozen=True)
class Recording:
    """The samples of a recording, `[N]` float32 from -1 to 1, of one channel. channels: how many the file has."""

    samples: np.ndarray
    rate: int
    channels: int = 1


def read_audio(path: str | Path) -> Recording:
    """Read a recording. Several channels become their mean.

    Raises DataError if the file cannot be read, is empty, or holds samples that are not finite, and ConfigurationError
    if the extra `audio` is not installed.
    """
    soundfile = _library("soundfile")
    try:
        with Path(path).open("rb") as file:
            samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except (RuntimeError, TypeError, ValueError) as error:  # LibsndfileError is a RuntimeError
        raise _unreadable(path, error) from error
    if not len(samples):
        raise DataError(f"{path}: the recording is empty")
    if not np.isfinite(samples).all():
        raise DataError(f"{path}: the recording has samples that are not finite")
    return Recording(samples.mean(1), int(rate), samples.shape[1])


def audio_rate(path: str | Path) -> int:
    """Return the samples per second of a recording without reading it; DataError if it cannot be read."""
    soundfile = _library("soundfile")
    try:
        return int(soundfile.info(str(path)).samplerate)
    except (RuntimeError, OSError, TypeError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str | Path, error: Exception) -> DataError:
    reason = getattr(error, "error_string", str(error)).strip().rstrip(".")  # without the repr of the file
    return DataError(f"{path}: cannot be read as a recording ({reason})")


def resample(samples: np.ndarray, rate: float, new_rate: float) -> np.ndarray:
    """Return the samples at another rate."""
    if rate == new_rate:
        return samples
    found: np.ndarray = _library("soxr").resample(samples, rate, new_rate)
    return found.astype(np.float32, copy=False)


def at_speed(samples: np.ndarray, speed: float) -> np.ndarray:
    """Return a recording that is faster by the factor `speed`, and higher.

    Source: Ko et al. 2015, "Audio Augmentation for Speech Recognition".
    """
    return resample(samples, speed, 1.0)


@dataclass(frozen=True)
class AudioFeatures:
    """Frames of audio, 100 a second: the logarithms of `bins` mel energies, or `bins` MFCC.

    rate: the samples per second, to which recordings are resampled.
    """

    kind: str = "mel"
    bins: int = 40
    rate: int = 16_000

    def __post_init__(self) -> None:
        require_choice("features", self.kind, ("mel", "mfcc"))
        require(1 <= self.bins <= 256, "bins", "from 1 to 256", self.bins)
        require(1000 <= self.rate <= 192_000, "rate", "from 1,000 to 192,000", self.rate)

    def of(self, recording: Recording) -> np.ndarray:
        """Return the frames `[T, D]` float32 of a recording; none if it is shorter than a window of 25 ms."""
        stream = AudioStream(self)
        return np.concatenate([stream.feed(resample(recording.samples, recording.rate, self.rate)), stream.finish()])

    @cached_property
    def _make(self) -> Callable[[], Any]:
        library = _library("kaldi_native_fbank")
        options = library.FbankOptions() if self.kind == "mel" else library.MfccOptions()
        options.frame_opts.samp_freq = self.rate
        options.frame_opts.dither = 0.0  # the same recording always has the same frames
        options.mel_opts.num_bins = self.bins if self.kind == "mel" else max(23, self.bins)
        if self.kind == "mfcc":
            options.num_ceps = self.bins
        make = library.OnlineFbank if self.kind == "mel" else library.OnlineMfcc
        try:
            make(options)
        except (ValueError, RuntimeError) as error:  # a filter that would lie between two frequencies, or too few
            said = f"`bins={self.bins}` does not fit recordings at {self.rate:,} Hz ({str(error).rstrip('.')})"
            raise ConfigurationError(
                f"{said}: choose another number, or a higher `rate`", setting=("bins", "rate")
            ) from error
        return lambda: make(options)


class AudioStream:
    """The frames of sound as it comes, at the rate of its features: `feed` samples, then `finish`.

    Together they return the frames of the whole.
    """

    def __init__(self, features: AudioFeatures) -> None:
        self.features = features
        self._extractor = features._make()
        self._returned = 0

    def feed(self, samples: np.ndarray) -> np.ndarray:
        """Return the frames `[t, D]` that are complete after these samples, `[n]` from -1 to 1."""
        self._extractor.accept_waveform(self.features.rate, np.asarray(samples, np.float32) * _FULL_SCALE)
        return self._ready()

    def finish(self) -> np.ndarray:
        """Return the last frames."""
        self._extractor.input_finished()
        return self._ready()

    def _ready(self) -> np.ndarray:
        count = self._extractor.num_frames_ready - self._returned
        frames = [np.array(self._extractor.get_frame(self._returned + k), np.float32) for k in range(count)]
        self._extractor.pop(count)
        self._returned += count
        return np.stack(frames) if frames else np.zeros((0, self.features.bins), np.float32)


def _library(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:  # OSError: a shared library of the system is missing
        said = f"recordings need the package {name} ({error}): pip install 'unrolled[audio]'"
        raise ConfigurationError(said) from error
