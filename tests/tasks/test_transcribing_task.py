"""A transcriber as a task: it learns tones and printed lines, streams exactly, and says what is wrong with data."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.tasks.shared import assert_same_weights, whole_and_resumed
from tests.tasks.test_translation_task import gradients
from tests.tones import texts, tones, write_tones
from unrolled.data.line_images import installed_fonts
from unrolled.errors import ConfigurationError, DataError, RunError
from unrolled.tasks import load
from unrolled.tasks.start import Start
from unrolled.tasks.transcribing import TranscribingTask, create_run
from unrolled.tasks.transcribing_settings import (
    DecodingConfig,
    TranscriberConfig,
    TranscriberTraining,
    TranscribingConfig,
    TranscriptEvaluation,
    TranscriptsConfig,
)
from unrolled.tasks.transcribing_stream import TranscriptStream
from unrolled.training import Trainer, open_run

soundfile = pytest.importorskip("soundfile")

MODEL = {"cell": "gru", "hidden_size": 24, "num_layers": 1, "dropout": 0.0, "stride": 2}
TRAINING = {"batch_size": 10, "learning_rate": 0.02, "warmup_steps": 0, "eval_every": 20, "sample_every": 20}


def config(data, steps=80, model=None, training=None, **transcripts):
    return TranscribingConfig(
        TranscriptsConfig(**{"data": str(data), "bins": 12, **transcripts}),
        TranscriberConfig(**{**MODEL, **(model or {})}),
        TranscriberTraining(**{**TRAINING, "max_steps": steps, "augment": False, **(training or {})}),
    )


def trained(path, settings):
    task = create_run(path, settings)
    Trainer(task, settings.training, task.run).train()
    return task


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tones(tmp_path_factory.mktemp("tones") / "data", texts(60))


@pytest.fixture(scope="module")
def forwards(folder):
    return trained(folder.parent / "forwards", config(folder, 140, {"bidirectional": False})).load("best")


def test_it_learns_tones(folder, tmp_path):
    task = trained(tmp_path / "run", config(folder, training={"augment": True}, speeds=(0.95,)))
    report = task.load("best").score().json()
    assert report["cer"] < 0.1
    assert report["wer"] < 0.5
    assert "it says" in (tmp_path / "run" / "samples.txt").read_text()
    assert any("108 recordings" in value for _, value in task.facts())
    opened = load(tmp_path / "run")
    soundfile.write(tmp_path / "new.wav", tones("abcab"), 8000)
    (found,) = opened.transcribe([tmp_path / "new.wav"])
    assert found.text == "abcab"
    starts = [each["start"] for each in found.json()["characters"]]
    assert starts == sorted(starts)
    assert np.allclose(np.diff(starts), 0.12, atol=0.045)  # a letter every 120 ms, in steps of 20 ms
    assert 0.5 < found.confidence <= 1


def test_a_stream_says_what_the_whole_recording_says(forwards):
    samples = tones("cabac")
    (whole,) = forwards.decode([forwards.inputs.of(item_of(forwards, samples))], forwards.best_path)
    for decoding in (None, DecodingConfig(beam=8)):
        stream = TranscriptStream(forwards, forwards.decoder(decoding))
        seen = [stream.feed(samples[first : first + 333]).text for first in range(0, len(samples), 333)]
        found = stream.finish()
        assert found.text == "cabac"
        assert len(set(seen)) >= 5
        if decoding is None:
            assert [(one.text, one.first, one.last) for one in found.characters] == [
                (one.text, one.first, one.last) for one in whole.characters
            ]
            assert found.confidence == pytest.approx(whole.confidence)
            assert found.log_prob == pytest.approx(whole.log_prob)


def item_of(task, samples):
    from unrolled.data.transcripts import Item

    path = task.run.path / "new.wav"
    soundfile.write(path, samples, 8000, subtype="FLOAT")
    return Item("new.wav", "", path)


def test_only_models_that_read_forwards_stream(folder, tmp_path):
    both = create_run(tmp_path / "both", config(folder))
    with pytest.raises(ConfigurationError, match="reads both ways"):
        TranscriptStream(both)
    for name, model, advice in (
        ("forwards", {"bidirectional": False}, {"front"}),
        ("both-convolved", {"bidirectional": True}, {"no_bidirectional", "front"}),
    ):
        task = create_run(tmp_path / name, config(folder, model={**model, "front": "convolve"}))
        with pytest.raises(ConfigurationError, match=r"by convolution, so it cannot.*`front=join`") as caught:
            TranscriptStream(task)
        assert set(caught.value.settings) == advice
    (tmp_path / "text.txt").write_text("il\nli\n")
    pictures = config("", model={"bidirectional": False}, render=str(tmp_path / "text.txt"), copies=2, height=16)
    with pytest.raises(ConfigurationError, match=r"reads pictures, .*: train one on recordings$") as caught:
        TranscriptStream(create_run(tmp_path / "pictures", pictures))
    assert not caught.value.settings
    each = create_run(tmp_path / "each", config(folder, model={"bidirectional": False}, normalise="sequence"))
    with pytest.raises(ConfigurationError, match="normalises each recording as a whole"):
        TranscriptStream(each)


def test_a_beam_with_a_language_model_and_a_lexicon(forwards, tmp_path):
    from unrolled.cli import main

    (tmp_path / "text.txt").write_text("\n".join(texts(300, 5)) + "\n")
    words = ["train", "lm", "--data", tmp_path / "text.txt", "--hidden-size", "8", "--max-steps", "5"]
    words += ["--seq-length", "16", "--batch-size", "4", "--out", tmp_path / "lm", "--device", "cpu"]
    assert main([str(word) for word in words]) == 0
    report = forwards.score(beam=8, lm=str(tmp_path / "lm"), lm_weight=0.2, length_bonus=0.3)
    assert report.json()["cer"] < 0.1
    assert "beam of 8 with" in report.heading
    (tmp_path / "words.txt").write_text("abba\ncab\nxyz\n")
    decoder = forwards.decoder(DecodingConfig(lexicon=str(tmp_path / "words.txt")))
    assert "1 of 3 words have characters" in decoder.notes[0]
    inputs = [forwards.inputs.of(item_of(forwards, tones(text))) for text in ("abba", "cabb")]
    first, second = (each.text for each in forwards.decode(inputs, decoder))
    assert first == "abba"
    assert second in ("abba", "cab", "")
    (tmp_path / "words.txt").write_text("xyz")
    with pytest.raises(DataError, match="no word in it"):
        forwards.decoder(DecodingConfig(lexicon=str(tmp_path / "words.txt")))
    with pytest.raises(RunError):
        forwards.decoder(DecodingConfig(lm=str(forwards.run.path)))


def test_printed_lines_are_learned_from_fonts_alone(tmp_path):
    (tmp_path / "text.txt").write_text("il\nli\nlil\n\niil\n\U00013000\n")
    settings = config("", render=str(tmp_path / "text.txt"), copies=6, height=16, steps=60)
    task = trained(tmp_path / "run", settings)
    assert task.signal.kind == "pictures"
    assert any("no font has all of their characters" in note for note in task.signal.notes)
    assert task.score().json()["cer"] < 0.5
    (found,) = task.transcribe([picture(tmp_path / "a.png")])
    assert isinstance(found.text, str)
    assert found.json()["unit"] == "steps"


def picture(path):
    grey = np.full((16, 40), 255, np.uint8)
    grey[3:13, 10:12] = 0
    Image.fromarray(grey).save(path)
    return path


def test_what_is_wrong_with_data_is_counted_and_named(folder, tmp_path):
    data = tmp_path / "data"
    write_tones(data, texts(30))
    (data / "000.wav").write_text("rubbish")
    (data / "001.wav").write_bytes(b"")
    (data / "007.txt").unlink()
    picture(data / "cover.png")
    (data / "002.txt").write_text("abcabc" * 40)
    (data / "003.txt").write_text("")
    stereo = np.stack([tones("ab")] * 2, 1)
    soundfile.write(data / "004.wav", stereo, 8000)
    soundfile.write(data / "005.wav", tones("abc", 16_000), 16_000)
    soundfile.write(data / "006.wav", np.zeros(50, np.float32), 8000)
    write_tones(tmp_path / "dev", ["ab", "ba"])
    (tmp_path / "dev" / "000.txt").write_text("abx")
    notes = "\n".join(create_run(tmp_path / "run", config(data, dev=str(tmp_path / "dev"))).signal.notes)
    assert "3 recordings left out, because they cannot be read: 000.wav (cannot be read as a recording" in notes
    assert "006.wav (shorter than a window of 25 ms)" in notes
    assert "1 recording not trained on, with fewer steps than characters and repeats: 002.wav (" in notes
    assert "1 recording with several channels, whose mean is used: 004.wav" in notes
    assert "1 recording resampled to 8,000 Hz: 005.wav" in notes
    assert "1 recording left out, because there is no transcript next to them: 007.wav" in notes
    assert "1 recording with an empty transcript: 003.wav" in notes
    assert "the dev part has 1 character that training lacks, 1 error: 'x'" in notes


@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        ({"data": ""}, ConfigurationError, "`data` is missing"),
        ({"speeds": (0.9,)}, ConfigurationError, None),
        ({"group": "_(.*)_"}, DataError, "does not match this name"),
        ({"data": "", "render": "text.txt", "text_column": "a"}, ConfigurationError, "`text_column` names a column"),
        ({"fonts": ("a.ttf",)}, ConfigurationError, "`fonts` is about lines that are drawn"),
        ({"model": {"stride": 100}, "data": "one"}, DataError, "lower `stride`"),
    ],
)
def test_settings_that_do_not_fit_the_data(folder, tmp_path, change, error, reason):
    if "speeds" in change:
        np.savez(tmp_path / "a.npz", frames=np.zeros((20, 2)), offsets=[0, 10, 20], text=["a", "b"])
        change, reason = {**change, "data": str(tmp_path / "a.npz")}, "`speeds` is for recordings"
    if change.get("data") == "one":
        change = {**change, "data": write_tones(tmp_path / "data", ["abc", "ac"])}
    with pytest.raises(error, match=reason):
        create_run(tmp_path / "run", config(**{"data": folder, **change}))
    assert not (tmp_path / "run").exists()


def test_all_unreadable_is_an_error(tmp_path):
    data = write_tones(tmp_path / "data", ["a", "b"])
    for path in data.glob("*.wav"):
        path.write_text("rubbish")
    with pytest.raises(DataError, match="nothing of it can be read: 2 recordings left out"):
        create_run(tmp_path / "run", config(data, val_fraction=0.0))


def test_an_unreadable_dev_part_is_an_error(folder, tmp_path):
    """Training on without validation would be silent."""
    dev = write_tones(tmp_path / "dev", ["a", "b"])
    for path in dev.glob("*.wav"):
        path.write_text("rubbish")
    with pytest.raises(DataError, match="dev: nothing of it can be read: 2 recordings left out"):
        create_run(tmp_path / "run", config(folder, dev=str(dev)))


def test_a_font_that_is_named_must_be_one(tmp_path):
    (tmp_path / "text").write_text("one\ntwo\n")
    good = next(font for font in installed_fonts() if "DejaVuSans" in font)
    with pytest.raises(ConfigurationError, match=r"test_transcribing_task\.py: not a font that can be scaled"):
        create_run(tmp_path / "run", config("", render=str(tmp_path / "text"), fonts=(good, __file__)))


def test_eval_reads_the_columns_that_training_read(tmp_path):
    data = write_tones(tmp_path / "data", texts(12))
    rows = "".join(f"{path.name},{path.with_suffix('.txt').read_text()}" for path in sorted(data.glob("*.wav")))
    (data / "list.csv").write_text(f"sound,words\n{rows}")
    task = create_run(tmp_path / "run", config(data / "list.csv", file_column="sound", text_column="words"))
    assert "12 transcripts" in task.evaluate(TranscriptEvaluation(data=str(data / "list.csv"))).heading
    (data / "000.txt").unlink()
    assert any("there is no transcript" in note for note in task.evaluate(TranscriptEvaluation(data=str(data))).notes)


def test_eval_on_other_data(forwards, tmp_path):
    data = write_tones(tmp_path / "other", ["abc", "ca"])
    (data / "001.wav").write_text("rubbish")
    report = forwards.evaluate(TranscriptEvaluation(data=str(data)))
    assert "1 transcripts" in report.heading
    assert "left out" in report.notes[0]
    (data / "000.wav").write_text("rubbish")
    with pytest.raises(DataError, match="none of it can be read"):
        forwards.evaluate(TranscriptEvaluation(data=str(data)))


def test_a_resumed_run_ends_with_the_same_weights(folder, tmp_path):
    """Also with data that are changed at random, and a pass that was left in the middle."""
    settings = config(folder, model={"dropout": 0.2}, training={"augment": True, "noise": 0.1, "eval_every": 2})
    training = replace(settings.training, lr_schedule="constant", max_steps=7)
    whole, resumed = whole_and_resumed(tmp_path, TranscribingTask, replace(settings, training=training), 4)
    assert_same_weights(whole, resumed)


def test_parts_and_shares_of_a_batch_add_up_to_it(folder, tmp_path):
    task = create_run(tmp_path / "run", config(folder))
    batch = task.epoch(0).batch(0)
    loss, whole = gradients(task, batch)
    for accumulate in (1, 3):
        shares = [gradients(task, batch, 3, rank, accumulate) for rank in range(3)]
        assert sum(part for part, _ in shares) == pytest.approx(loss, rel=1e-5)
        for expected, *parts in zip(whole, *(found for _, found in shares), strict=True):
            torch.testing.assert_close(sum(parts), expected, rtol=1e-4, atol=1e-5)


def test_a_run_starts_another_with_more_characters(forwards, folder, tmp_path):
    data = write_tones(tmp_path / "data", texts(20))
    (data / "000.txt").write_text("abz")
    start = Start(forwards.run.path)
    settings = config(data, model={"bidirectional": False})
    task = TranscribingTask.create(tmp_path / "run", settings, start=start)
    assert "1 new one starts fresh" in start.notes[0]
    old, new = forwards.model.state_dict(), task.model.state_dict()
    for label in "abc":
        ours, theirs = task.labels.number[label], forwards.labels.number[label]
        assert torch.equal(new["readout.weight"][ours], old["readout.weight"][theirs])
    assert torch.equal(new["front.projection.linear.weight"], old["front.projection.linear.weight"])


def test_damaged_runs_are_errors(folder, tmp_path):
    task = create_run(tmp_path / "run", config(folder))
    path = task.run.path
    stored = json.loads((path / "transcripts.json").read_text())
    (path / "transcripts.json").write_text(json.dumps({**stored, "train": [999]}))
    with pytest.raises(RunError, match="a number is outside of the items"):
        _ = TranscribingTask(open_run(path)).items
    (path / "signal.json").write_text('{"kind": "smell", "width": 3}')
    with pytest.raises(RunError, match="unknown value 'smell'"):
        TranscribingTask(open_run(path))


@pytest.mark.parametrize(
    ("file", "change", "reason"),
    [
        ("signal.json", {"rate": 1}, "`rate` must be 0, or from 1,000 to 192,000, got 1"),
        ("signal.json", {"rate": 1_000_000}, "`rate` must be 0, or"),
        ("signal.json", {"width": 0}, "`width` must be at least 1"),
        ("transcripts.json", {"train": []}, "nothing to train on"),
        ("transcripts.json", {"train": "0"}, "must be lists"),
        ("vocabulary-labels.json", None, "it is empty"),
    ],
)
def test_what_is_wrong_in_a_file_of_a_run_is_no_setting(folder, tmp_path, file, change, reason):
    task = create_run(tmp_path / "run", config(folder))
    path = task.run.path / file
    path.write_text(json.dumps([] if change is None else {**json.loads(path.read_text()), **change}))
    with pytest.raises(RunError, match=f"{file}: .*{reason}") as caught:
        TranscribingTask(open_run(task.run.path)).validate()
    assert not caught.value.settings
