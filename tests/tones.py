"""Recordings in which every letter is a tone: small data for transcribers, made on the spot."""

import random

import numpy as np

#: The frequency of each letter, in hertz; a space is silence.
TONES = {"a": 400, "b": 900, "c": 1600, " ": 0}


def tones(text, rate=8000, seconds=0.08, loudness=0.3):
    """The samples of a text: a tone for every letter, and a little silence between and around them."""
    draw = np.random.default_rng(len(text))
    time = np.arange(round(seconds * rate)) / rate
    parts = [np.zeros(round(0.05 * rate))]
    for letter in text:
        parts += [loudness * np.sin(2 * np.pi * TONES[letter] * time), np.zeros(round(0.04 * rate))]
    samples = np.concatenate(parts)
    return (samples + 0.003 * draw.normal(size=len(samples))).astype(np.float32)


def texts(count, seed=0, longest=5):
    draw = random.Random(seed)
    return ["".join(draw.choice("abc") for _ in range(draw.randint(1, longest))) for _ in range(count)]


def write_tones(folder, found, rate=8000):
    """Write a folder of recordings, each with its transcript next to it."""
    import soundfile

    folder.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(found):
        soundfile.write(folder / f"{number:03}.wav", tones(text, rate), rate)
        (folder / f"{number:03}.txt").write_text(text + "\n")
    return folder
