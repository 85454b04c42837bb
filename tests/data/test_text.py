"""Sources, token files and streams."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.programs import completed
from unrolled.data import TokenFile, build_vocabulary, encode_files, find_sources, read_text, standard_library
from unrolled.data import pieces as pieces_module
from unrolled.data.streams import Streams, split_tokens
from unrolled.data.vocabulary import ByteVocabulary
from unrolled.errors import ConfigurationError, DataError, RunError


def test_files_folders_and_globs(tmp_path):
    for name in ("b.txt", "a.txt", "c.py", ".hidden", "sub/d.txt", ".git/x.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    names = lambda *given, **kw: [p.name for p in find_sources([str(g) for g in given], **kw)]  # noqa: E731
    assert names(tmp_path) == ["a.txt", "b.txt", "c.py", "d.txt"]
    assert names(tmp_path, glob="*.py") == ["c.py"]
    assert names(tmp_path / "c.py", tmp_path / "a.txt") == ["c.py", "a.txt"]
    with pytest.raises(DataError, match="matches"):
        names(tmp_path, glob="*.c")
    with pytest.raises(DataError, match="no such file"):
        names(tmp_path / "none.txt")


def test_standard_input(monkeypatch):
    class Piped:
        buffer = io.BytesIO("grüß".encode())
        isatty = staticmethod(lambda: False)

    monkeypatch.setattr(sys, "stdin", Piped)
    assert "".join(read_text(find_sources(["-"]))) == "grüß"


def test_default_corpus_is_this_pythons_library():
    files = standard_library()
    assert {"argparse.py", "textwrap.py"} <= {path.name for path in files}
    assert not any("test" in path.parts or "site-packages" in path.parts for path in files)
    assert files == find_sources([])
    assert sum(path.stat().st_size for path in files) > 4_000_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"abc\xff", r"not UTF-8 text \(byte 3\)"),
        (b"abc\x00def", "binary"),
        (b"abc\xe4\xb8", "not UTF-8"),
        (b"x" * 20 + b"\xe4\xb8z", r"\(byte 20\)"),
    ],
)
def test_binary_files_are_named(tmp_path, content, message, monkeypatch):
    monkeypatch.setattr(pieces_module, "BLOCK_BYTES", 21)
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        list(read_text([path]))
    assert str(path) in str(error.value)


@given(st.lists(st.text(alphabet="aé世\n", max_size=30), min_size=1), st.integers(1, 9))
def test_blocks_are_the_text_cut_at_line_ends(tmp_path_factory, texts, size):
    folder = tmp_path_factory.mktemp("blocks")
    files = []
    for k, text in enumerate(texts):
        files.append(folder / f"{k}.txt")
        files[-1].write_text(text, encoding="utf-8", newline="")
    before, pieces_module.BLOCK_BYTES = pieces_module.BLOCK_BYTES, size
    try:
        blocks = list(read_text(files))
    finally:
        pieces_module.BLOCK_BYTES = before
    assert "".join(blocks) == "".join(texts)


@pytest.mark.parametrize("level", ["char", "word", "byte", "bpe"])
def test_token_files(tmp_path, text_file, level):
    vocabulary = build_vocabulary(level, [text_file], size=400)
    file = encode_files([text_file, text_file], vocabulary, tmp_path / "t.bin")
    assert vocabulary.decode(file.tokens) == text_file.read_text(encoding="utf-8") * 2
    assert file.count == len(TokenFile.open(tmp_path / "t.bin").tokens)


def test_damaged_token_files(tmp_path, text_file):
    path = tmp_path / "t.bin"
    with pytest.raises(RunError, match="no encoded text"):
        TokenFile.open(path)
    encode_files([text_file], ByteVocabulary(), path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RunError, match="bytes, but"):
        TokenFile.open(path)


@given(st.integers(2, 400), st.integers(1, 6), st.integers(1, 9), st.integers(0, 8))
def test_streams_read_the_text_in_order_and_never_across_an_end(length, batch, steps, offset):
    tokens = np.arange(length, dtype=np.uint16)
    try:
        streams = Streams(tokens, batch, steps, offset)
    except DataError:
        assert length < batch * steps + 1
        return
    chunks = [streams.batch(k) for k in range(len(streams))]
    inputs = np.concatenate([chunk.inputs.numpy() for chunk in chunks])
    targets = np.concatenate([chunk.targets.numpy() for chunk in chunks])
    assert (targets == inputs + 1).all()
    assert (np.diff(inputs, axis=0) == 1).all()
    assert inputs.shape == (streams.stream_length, batch)
    if batch > 1:  # where one stream ends the next begins: together they are the text
        assert (inputs[0, 1:] == targets[-1, :-1]).all()
    assert length - 1 - targets[-1, -1] < batch


def test_splits_are_contiguous_and_complete():
    tokens = np.arange(1001)
    parts = split_tokens(tokens, 0.1, 0.05)
    assert np.array_equal(np.concatenate([parts.train, parts.validation, parts.test]), tokens)
    assert [len(parts.train), len(parts.test)] == [850, 50]
    for bad in ((0.5, 0.5), (-0.1, 0), (0, 1.0)):
        with pytest.raises(ConfigurationError):
            split_tokens(tokens, *bad)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of its memory from Linux")
def test_encoding_a_large_text_takes_little_memory(tmp_path):
    """200 MB of text: were any whole copy of it held, the bound could not hold either."""
    script = f"""
from pathlib import Path
from unrolled.data import build_vocabulary, encode_files
path = Path({str(tmp_path / "large.txt")!r})
with path.open("w") as file:
    for _ in range(200):
        file.write(("All the world's a stage, and all the men\\n" * 26000)[:1_000_000])
vocabulary = build_vocabulary("char", [path])
encoded = encode_files([path], vocabulary, path.with_suffix(".bin"))
assert encoded.count == 200_000_000, encoded.count
# Not getrusage: its maximum is that of the process that started this one, where that was larger.
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(int(peak.split()[1]) / 1024)
"""
    done = completed([sys.executable, "-c", script], check=True)
    assert float(done.stdout) < 150
