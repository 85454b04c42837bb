"""Recordings of every form, and frames that are the same in pieces as at once."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tones import tones
from unrolled.data.audio import AudioFeatures, AudioStream, Recording, at_speed, audio_rate, read_audio, resample
from unrolled.errors import ConfigurationError, DataError

soundfile = pytest.importorskip("soundfile")


@pytest.mark.parametrize(
    ("suffix", "options", "within"),
    [
        ("wav", {"subtype": "PCM_16"}, 1e-4),
        ("wav", {"subtype": "PCM_U8"}, 1e-2),
        ("wav", {"subtype": "FLOAT"}, 1e-6),
        ("flac", {}, 1e-4),
        ("ogg", {}, 0.1),
    ],
)
def test_forms_of_recordings(tmp_path, suffix, options, within):
    path, samples = tmp_path / f"a.{suffix}", tones("ab")
    soundfile.write(path, samples, 8000, **options)
    found = read_audio(path)
    assert (found.rate, found.channels, audio_rate(path)) == (8000, 1, 8000)
    assert np.abs(found.samples - samples).max() < within


def test_channels_become_their_mean(tmp_path):
    samples = tones("a")
    soundfile.write(tmp_path / "a.wav", np.stack([samples, np.zeros_like(samples)], 1), 8000)
    found = read_audio(tmp_path / "a.wav")
    assert found.channels == 2
    assert np.abs(found.samples - samples / 2).max() < 1e-4


def test_what_cannot_be_read(tmp_path):
    (tmp_path / "text.wav").write_text("this is no recording")
    (tmp_path / "empty.wav").write_bytes(b"")
    soundfile.write(tmp_path / "none.wav", np.zeros(0, np.float32), 8000)
    soundfile.write(tmp_path / "nan.wav", np.full(900, np.nan, np.float32), 8000, subtype="FLOAT")
    for name, reason in [
        ("text.wav", "cannot be read as a recording"),
        ("empty.wav", "cannot be read as a recording"),
        ("none.wav", "is empty"),
        ("nan.wav", "not finite"),
        ("missing.wav", "No such file"),
    ]:
        with pytest.raises(DataError, match=f"{name}: .*{reason}"):
            read_audio(tmp_path / name)


def test_resampling_keeps_a_tone():
    samples = tones("b", rate=16_000)
    found = resample(samples, 16_000, 8000)
    assert len(found) == pytest.approx(len(samples) / 2, abs=2)
    spectrum = np.abs(np.fft.rfft(found))
    assert np.argmax(spectrum) * 8000 / len(found) == pytest.approx(900, abs=8)
    faster = np.abs(np.fft.rfft(at_speed(samples, 1.5)))
    assert np.argmax(faster) * 16_000 / len(at_speed(samples, 1.5)) == pytest.approx(1350, abs=12)


@pytest.mark.parametrize("kind", ["mel", "mfcc"])
@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 3000), max_size=6))
def test_frames_come_in_pieces_as_at_once(kind, cuts):
    features, samples = AudioFeatures(kind, 13, 8000), tones("abc")
    whole = features.of(Recording(samples, 8000))
    assert whole.shape == (1 + (len(samples) - 200) // 80, 13)
    stream, found = AudioStream(features), []
    ends = [0, *sorted(min(cut, len(samples)) for cut in cuts), len(samples)]
    for first, end in pairwise(ends):
        found.append(stream.feed(samples[first:end]))
    found.append(stream.finish())
    assert np.array_equal(np.concatenate(found), whole)


def test_a_tone_is_loudest_in_its_band():
    features = AudioFeatures("mel", 20, 8000)
    low, high = (features.of(Recording(tones(letter), 8000)).mean(0).argmax() for letter in "ac")
    assert low < high
    assert len(features.of(Recording(np.zeros(100, np.float32), 8000))) == 0


def test_settings_are_checked():
    for options in ({"kind": "chroma"}, {"bins": 0}, {"rate": 10}):
        with pytest.raises(ConfigurationError):
            AudioFeatures(**options)


@pytest.mark.parametrize(("bins", "rate"), [(2, 8000), (256, 8000), (40, 1000)])
def test_filters_that_do_not_fit_the_rate_are_an_error(bins, rate):
    with pytest.raises(ConfigurationError, match=f"`bins={bins}` does not fit recordings at {rate:,} Hz") as caught:
        AudioStream(AudioFeatures("mel", bins, rate))
    assert caught.value.settings == ("bins", "rate")
