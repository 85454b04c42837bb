"""The command caption, the page, and drawn scenes: from pictures to sentences with an image encoder."""

import json
import random
import re
import shutil
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from tests.cli.shared import error_of
from tests.cli.test_translation import said
from unrolled.cli import main
from unrolled.data.caption_tokens import caption_text, caption_tokens
from unrolled.data.scenes import captions_of, draw_scene, picture_of
from unrolled.models.image_encoders import lite0_weights
from unrolled.tasks import load

needs_encoder = pytest.mark.skipif(lite0_weights() is None, reason="needs the extra images: the weights of lite0")
SMALL = ["--hidden-size", "16", "--embedding-size", "8", "--min-count", "1", "--batch-size", "6", "--device", "cpu"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("caption")
    assert main(["data", "scenes", str(folder / "scenes"), "--count", "24", "--size", "64"]) == 0
    words = ["train", "caption", "--data", folder / "scenes" / "captions.jsonl", *SMALL, "--max-steps", "8"]
    assert main([str(word) for word in [*words, "--eval-every", "4", "--out", folder / "run"]]) == 0
    (folder / "new").mkdir()
    for number in (3, 4):
        shutil.copy(folder / "scenes" / "images" / f"scene-{number:05}.png", folder / "new")
    return folder


def test_scenes_say_what_they_show():
    draw = random.Random(5)
    for _ in range(200):
        scene = draw_scene(draw)
        captions = captions_of(scene)
        assert len(set(captions)) == 5
        for thing in scene.things:
            assert any(f"{thing.colour} {thing.shape}" in caption for caption in captions)
        if len(scene.things) == 2:
            first, other = scene.things
            left = f"{first.name} to the left of a {other.name}" in captions[0]
            right = f"{first.name} to the right of a {other.name}" in captions[0]
            over, under = (f"{first.name} {word} a {other.name}" in captions[0] for word in ("above", "below"))
            order = {"left": 0, "middle": 1, "right": 2, "top": 0, "bottom": 2}
            across, down = order[first.column] - order[other.column], order[first.row] - order[other.row]
            assert left + right + over + under == 1
            assert not left or across < 0
            assert not right or across > 0
            assert not over or down < 0
            assert not under or down > 0
    colour = np.asarray(picture_of(draw_scene(random.Random(1)), 32))
    assert colour.shape == (32, 32, 3)


def test_a_folder_of_scenes_is_not_overwritten(folder, capsys):
    assert "not an empty folder" in error_of(["data", "scenes", folder / "scenes"], capsys)


@needs_encoder
def test_one_line_for_each_picture(folder, capsys):
    one = said(capsys, "caption", folder / "run", folder / "new" / "scene-00003.png").out
    assert one.count("\n") == 1
    both = said(capsys, "caption", folder / "run", folder / "new").out.splitlines()
    assert both[0].split("\t")[1] == one.strip()
    assert [line.split("\t")[0].rsplit("/", 1)[-1] for line in both] == ["scene-00003.png", "scene-00004.png"]
    assert load(folder / "run").caption([folder / "new" / "scene-00003.png"]) == [one.strip()]


@needs_encoder
def test_the_features_of_training_are_those_of_use(folder):
    task = load(folder / "run")
    stored = task.features_of([2])
    fresh = task.encode([task.pictures.files[2]])
    for name in ("vector", "grid"):
        ours, theirs = getattr(stored, name), getattr(fresh, name)
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-3, atol=1e-3)


@needs_encoder
def test_n_best_json_samples_and_an_ensemble(folder, capsys):
    picture = folder / "new" / "scene-00003.png"
    lines = said(capsys, "caption", folder / "run", picture, "--n-best", "3").out.splitlines()
    scores = [float(line.split("\t")[0]) for line in lines]
    assert len(lines) == 3
    assert all(one >= other for one, other in pairwise(scores))
    found = json.loads(said(capsys, "caption", folder / "run", picture, "--json", "--ensemble", folder / "run").out)
    assert found["captions"][0]["caption"] == lines[0].split("\t")[1]
    sampled = [said(capsys, "caption", folder / "run", picture, "--sample", "4", "--seed", "2").out for _ in range(2)]
    assert sampled[0] == sampled[1]
    assert len(sampled[0].splitlines()) == 4
    begun = said(capsys, "caption", folder / "run", picture, "--prefix", "there is").out
    assert begun.startswith("there is")
    diverse = said(capsys, "caption", folder / "run", picture, "--beam", "4", "--n-best", "4", "--diversity", "1").out
    assert len(set(diverse.splitlines())) == 4


@needs_encoder
def test_figures_of_a_picture(folder, tmp_path, capsys):
    picture = folder / "new" / "scene-00003.png"
    words = ["caption", folder / "run", picture, "--attention", tmp_path / "a.png", "--tree", tmp_path / "t.svg"]
    said(capsys, *words)
    assert Image.open(tmp_path / "a.png").size[0] > 300
    assert "<svg" in (tmp_path / "t.svg").read_text()
    assert "exists" in error_of(words, capsys)


@needs_encoder
def test_the_page(folder, tmp_path, capsys):
    said(capsys, "inspect", folder / "run", "--out", tmp_path / "page.html", "--count", "2")
    page = (tmp_path / "page.html").read_text()
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])
    assert len(data["pictures"]) == 2
    for picture in data["pictures"]:
        assert picture["image"].startswith("data:image/jpeg;base64,")
        assert len(picture["weights"]) == len(picture["words"])
        assert len(picture["references"]) == 5
        assert sum(picture["weights"][0]) == pytest.approx(1, abs=0.01)


@needs_encoder
def test_pictures_that_cannot_be_read(folder, tmp_path, capsys):
    good = folder / "new" / "scene-00003.png"
    (tmp_path / "page.jpg").write_text("<html>not found</html>")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:300])
    bad = [tmp_path / name for name in ("page.jpg", "empty.png", "cut.png", "none.png")]
    assert main([str(word) for word in ["caption", folder / "run", *bad, good]]) == 2
    output = capsys.readouterr()
    assert output.out.startswith(f"{good}\t")
    lines = output.err.strip().splitlines()
    assert len(lines) == 4
    assert all(str(file) in line for file, line in zip(bad, lines, strict=True))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "name at least one PICTURE"),
        ([""], "PICTURE is empty"),
        (["a.png", "--sample", "2", "--n-best", "2"], "--sample draws captions"),
        (["a.png", "--attention", "a.txt"], "must end in .png"),
        (["a.png", "--beam", "2", "--n-best", "3"], "n-best (3) cannot be above the beam"),
    ],
)
def test_bad_flags_are_one_line(folder, capsys, words, text):
    line = error_of(["caption", folder / "run", *words], capsys)
    assert text in line or "empty" in line


@pytest.mark.parametrize("text", ["A man's dog doesn't bark.", "two t-shirts, and 3 men", "Q&A at 5 o'clock"])
def test_tokens_come_back_from_their_text(text):
    tokens = caption_tokens(text)
    assert caption_tokens(caption_text(tokens)) == tokens
