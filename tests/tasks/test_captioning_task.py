"""A captioner as a task, on given features: what it learns, how it resumes, and what it says of bad input."""

import dataclasses
import itertools
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from tests.cli.shared import error_of
from tests.cli.test_translation import said
from tests.tasks.shared import assert_same_weights, whole_and_resumed
from unrolled.cli import main
from unrolled.decoding import BeamSearch, Sampling
from unrolled.errors import ConfigurationError, DataError, RunError
from unrolled.tasks import load
from unrolled.tasks.captioning import CaptioningTask, create_run
from unrolled.tasks.captioning_settings import (
    DEFAULT_CELLS,
    CaptionerConfig,
    CaptioningConfig,
    CaptionsConfig,
    CaptionTraining,
)
from unrolled.tasks.describer import Describer
from unrolled.tasks.self_critical import SelfCritical

COLOURS, SHAPES, PLACES = ("red", "green", "blue"), ("circle", "square", "star"), ("left", "right")
SMALL = ["--hidden-size", "24", "--embedding-size", "12", "--dropout", "0", "--learning-rate", "0.01"]
SMALL += ["--warmup-steps", "0", "--label-smoothing", "0", "--batch-size", "6", "--min-count", "1", "--device", "cpu"]


def scenes(folder, copies=2):
    """Every colour, shape and place: the vector says all of it, and the grid says it at the place."""
    names, vectors, grids, lines = [], [], [], []
    draw = np.random.default_rng(0)
    for copy, colour, shape, place in itertools.product(range(copies), range(3), range(3), range(2)):
        name = f"{COLOURS[colour]}-{SHAPES[shape]}-{PLACES[place]}-{copy}.jpg"
        vector = np.concatenate([np.eye(3)[colour], np.eye(3)[shape], np.eye(2)[place]]) * 2
        grid = np.zeros((2, 8))
        grid[place] = vector
        names.append(name)
        vectors.append(vector + draw.normal(0, 0.05, 8))
        grids.append(grid + draw.normal(0, 0.05, (2, 8)))
        said_once = f"A {COLOURS[colour]} {SHAPES[shape]} on the {PLACES[place]} ."
        lines += [f"{name}#0\t{said_once}", f"{name}#1\t{said_once.replace('A ', 'there is a ')}"]
    np.savez(folder / "features.npz", names=names, vectors=vectors, grids=grids)
    (folder / "captions.txt").write_text("\n".join(lines) + "\n")
    (folder / "dev.txt").write_text("\n".join(name for name in names if name.endswith("-1.jpg")) + "\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("caption")
    scenes(folder)
    words = ["train", "caption", *data(folder), *SMALL, "--max-steps", "120", "--eval-every", "60"]
    assert main([str(word) for word in [*words, "--out", folder / "run"]]) == 0
    return folder


def data(folder):
    return [
        *("--data", folder / "captions.txt", "--features", folder / "features.npz"),
        *("--dev-names", folder / "dev.txt"),
    ]


def config(folder, training=None, model=None, **captions):
    sizes = {"hidden_size": 12, "embedding_size": 8, "dropout": 0.0}
    return CaptioningConfig(
        CaptionsConfig(
            **{
                "data": str(folder / "captions.txt"),
                "features": str(folder / "features.npz"),
                "dev_names": str(folder / "dev.txt"),
                "min_count": 1,
                **captions,
            }
        ),
        CaptionerConfig(**{**sizes, **(model or {})}),
        CaptionTraining(**{"batch_size": 6, "eval_every": 4, "captions_per_picture": 2, **(training or {})}),
    )


def test_it_learns_to_describe(folder, capsys):
    report = json.loads(said(capsys, "eval", folder / "run", "--json", "--resamples", "0").out)
    assert report["cider_d"] > 5
    assert report["bleu1"] > 0.9
    assert report["cider_d"] > report["constant"]["cider_d"]
    assert report["constant"]["caption"]
    assert report["neighbours"]["cider_d"] > 5  # each picture has a copy in training
    assert "template" not in report  # there are no pictures, only features
    told = said(capsys, "info", folder / "run").out
    assert "18 to train on, with 36 captions; 18 to validate" in told
    assert "show-attend-tell, lstm, 1 × 24 units" in told
    assert "cider" in said(capsys, "runs", folder).out.lower()


def test_attention_has_a_row_for_each_word_and_the_end(folder):
    task = load(folder / "run")
    describer, features = Describer([task]), task.features_of([0])
    (best,) = describer.describe(features, BeamSearch(beam=1))[0]
    weights = describer.attention(features, best.words)
    assert weights.shape == (len(best.words) + 1, 2)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(Describer([task, task]).attention(features, best.words), weights, atol=1e-6)


@pytest.mark.parametrize("name", DEFAULT_CELLS)
def test_every_decoder_trains_and_resumes(folder, name, tmp_path):
    settings = config(folder, {"max_steps": 6}, {"model": name})
    whole, parts = whole_and_resumed(tmp_path, CaptioningTask, settings, 3)
    assert_same_weights(whole, parts)
    assert whole.validate() is not None


def test_the_batch_does_not_change_captions(folder):
    task = load(folder / "run")
    describer, how = Describer([task]), BeamSearch(beam=3, length_penalty=0.7)
    together = describer.describe(task.features_of(list(task.dev)), how)
    for number, wanted in zip(task.dev, together, strict=True):
        (alone,) = describer.describe(task.features_of([number]), how)
        assert alone[0].words == wanted[0].words
        assert alone[0].log_prob == pytest.approx(wanted[0].log_prob, abs=1e-4)


def test_a_prefix_an_ensemble_and_samples(folder):
    task = load(folder / "run")
    features = task.features_of([0, 1])
    describer = Describer([task, task])
    alone, both = (some.describe(features, BeamSearch(beam=2, n_best=2)) for some in (Describer([task]), describer))
    assert [[one.words for one in some] for some in both] == [[one.words for one in some] for some in alone]
    for some in describer.describe(features, BeamSearch(beam=2), "there is"):
        assert some[0].words[:2] == ("there", "is")
    with pytest.raises(ConfigurationError, match="does not know the word 'zebra'"):
        describer.describe(features, BeamSearch(), "a zebra")
    generator = torch.Generator().manual_seed(1)
    sampled = describer.sample(features, Sampling(), 4, generator)
    assert [len(some) for some in sampled] == [4, 4]
    again = describer.sample(features, Sampling(), 4, torch.Generator().manual_seed(1))
    assert sampled == again
    greedy = describer.sample(features, Sampling(temperature=0), 1)
    best = describer.describe(features, BeamSearch(beam=1, length_penalty=0))
    assert [some[0].words for some in greedy] == [some[0].words for some in best]
    assert greedy[0][0].log_prob == pytest.approx(best[0][0].log_prob, abs=1e-4)


def test_self_critical_learning_goes_on_from_a_run(folder, tmp_path, capsys):
    words = ["train", "caption", *data(folder), "--min-count", "1", "--init-from", folder / "run", "--self-critical"]
    words += ["--batch-size", "6", "--captions-per-picture", "3", "--max-steps", "6", "--eval-every", "3"]
    assert main([str(word) for word in [*words, "--dropout", "0", "--out", tmp_path / "better"]]) == 0
    before, after = load(folder / "run"), load(tmp_path / "better", "last")
    assert after.words.strings == before.words.strings
    assert -after.validate() > -before.validate() - 1
    assert not torch.equal(after.model.readout.weight, before.model.readout.weight)
    assert "self-critical" in said(capsys, "info", tmp_path / "better").out


def test_the_loss_of_a_sample_is_its_advantage_times_its_surprise(folder, tmp_path):
    task = create_run(tmp_path / "run", config(folder))
    learning = SelfCritical([[(1, 2), (1, 3)], [(4,)]], task.end, 5)
    captions = [np.array([1, 2]), np.array([1, 2, 3, 4, 5])]
    with_end = learning.cider.score([(1, 2, task.end), (1, 2, 3, 4, 5)], [[(1, 2), (1, 3)], [(4,)]])
    assert learning.rewards(captions, [0, 1]).tolist() == with_end.tolist()
    features, learning.max_length = task.features_of([0, 1]), 99
    task.model.eval()
    torch.manual_seed(4)
    found = learning.loss(task.model, features, [0, 1], 2)
    torch.manual_seed(4)
    describer = Describer([task])
    describer.longest = 99
    describer.sample(features, Sampling(temperature=0), 1)  # draws as many numbers
    sampled = [one for some in describer.sample(features, Sampling(), 2) for one in some]
    greedy = [some[0] for some in describer.describe(features, BeamSearch(beam=1, length_penalty=0))]

    def tokens(caption):
        return np.array([task.words[word] for word in caption.words], np.int64)

    rewards = learning.rewards([tokens(one) for one in sampled], [0, 0, 1, 1])
    rewards = rewards - learning.rewards([tokens(one) for one in greedy], [0, 1]).repeat(2)
    wanted = -sum(reward * one.log_prob for reward, one in zip(rewards, sampled, strict=True))
    assert float(found) == pytest.approx(float(wanted), abs=1e-3)


def test_a_run_that_moved_still_has_its_features(folder, tmp_path):
    shutil.copytree(folder / "run", tmp_path / "moved")
    assert load(tmp_path / "moved").validate() == load(folder / "run").validate()


@pytest.mark.parametrize(
    ("change", "said_of_it"),
    [
        ({"data": ""}, "`data` is missing"),
        ({"min_count": 1000}, "no word of .* occurs at least 1000 times"),
        ({"train_names": "none.txt"}, "none.txt"),
    ],
)
def test_bad_settings_are_one_line(folder, tmp_path, change, said_of_it):
    with pytest.raises((ConfigurationError, DataError), match=said_of_it):
        create_run(tmp_path / "bad", config(folder, **change))
    assert not (tmp_path / "bad").exists()


def test_features_that_are_missing_are_counted(folder, tmp_path, capsys):
    arrays = dict(np.load(folder / "features.npz"))
    kept = {name: value[3:] for name, value in arrays.items()}
    np.savez(tmp_path / "fewer.npz", **kept)
    task = create_run(tmp_path / "run", config(folder, features=str(tmp_path / "fewer.npz")))
    assert task.pictures.train == 15
    assert any("3 pictures cannot be read and are left out: red-circle" in note for note in task.noticed.notes)
    np.savez(tmp_path / "fewer.npz", names=kept["names"], vectors=kept["vectors"])
    with pytest.raises(DataError, match="has no `grids`"):
        create_run(tmp_path / "other", config(folder, features=str(tmp_path / "fewer.npz")))
    create_run(tmp_path / "vector", config(folder, model={"model": "lrcn"}, features=str(tmp_path / "fewer.npz")))
    np.savez(tmp_path / "fewer.npz", vectors=kept["vectors"])
    with pytest.raises(DataError, match="must hold `names` and `vectors`"):
        create_run(tmp_path / "third", config(folder, features=str(tmp_path / "fewer.npz")))
    with pytest.raises(RunError, match="its features are missing"):
        load(tmp_path / "run", None).validate()


def test_runs_that_do_not_fit_are_no_ensemble(folder, tmp_path):
    other = create_run(tmp_path / "other", config(folder, min_count=20))
    with pytest.raises(ConfigurationError, match="its words are not those of"):
        Describer([load(folder / "run"), other])


def test_self_critical_needs_a_trained_run(folder, capsys):
    line = error_of(["train", "caption", *data(folder), "--self-critical"], capsys)
    assert "--init-from" in line


def test_new_pictures_need_an_encoder(folder, tmp_path, capsys):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    line = error_of(["caption", folder / "run", tmp_path / "a.png"], capsys)
    assert "trained on given features, so it has no encoder for new pictures" in line


def test_weight_penalty_and_scheduled_sampling(folder, tmp_path):
    task = create_run(tmp_path / "run", config(folder, {"weight_penalty": 0.5}))
    batch = task.epoch(0).batch(0)
    task.model.train()
    with_penalty = task.loss(batch)[0]
    plain = dataclasses.replace(task.config, training=dataclasses.replace(task.config.training, weight_penalty=0.0))
    task.config = plain
    squares = sum(float(weight.square().sum()) for weight in task.model.parameters())
    assert float(with_penalty - task.loss(batch)[0]) == pytest.approx(0.5 * batch.count * squares, rel=1e-3)
    sampled = dataclasses.replace(plain, training=dataclasses.replace(plain.training, scheduled_sampling=0.9))
    task.config = sampled
    assert float(task.loss(batch)[0]) != pytest.approx(float(with_penalty))
