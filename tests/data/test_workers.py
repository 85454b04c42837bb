"""A large text is encoded by several processes to what one would make of it, once."""

import hashlib
import os

import numpy as np
import pytest

from unrolled.data import LEVELS, build_vocabulary, encode_files, tokens, workers
from unrolled.data.workers import WorkerPool
from unrolled.errors import DataError


@pytest.fixture
def many(monkeypatch, tmp_path):
    """Texts of a few kilobytes count as large, and the cache is empty."""
    monkeypatch.setattr(tokens, "PART_BYTES", 3000)
    monkeypatch.setattr(tokens, "ALONE", 2)
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokens"


@pytest.fixture
def files(tmp_path):
    made = []
    for number, text in enumerate(
        ("\ufeffZoë said: grüß dich\n" * 400, "", "x", "no line end " * 3000, "世界!\n" * 900)
    ):
        made.append(tmp_path / f"{number}.txt")
        made[-1].write_text(text, encoding="utf-8")
    return made


@pytest.mark.parametrize("level", LEVELS)
def test_the_number_of_processes_changes_nothing(many, files, tmp_path, monkeypatch, level):
    made = []
    for count in (0, 1, 3):  # 0: none but this
        monkeypatch.setattr(tokens, "ALONE", 2 if count else 10**9)
        monkeypatch.setattr(workers, "processors", lambda count=count: count)
        monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path / f"cache-{count}"))
        said = []
        vocabulary = build_vocabulary(level, files, size=400 if level in ("word", "bpe") else None)
        file = encode_files(
            files, vocabulary, tmp_path / f"{count}.bin", lambda what, share, said=said: said.append(share)
        )
        file.verify()
        made.append((vocabulary.state(), (tmp_path / f"{count}.bin").read_bytes()))
        assert said == sorted(said)
        assert said[-1:] == ([1.0] if count else [])
    assert made[0] == made[1] == made[2]
    if level != "word":  # whose rare words are gone
        text = "".join(path.read_text(encoding="utf-8-sig" if level != "byte" else "utf-8") for path in files)
        assert vocabulary.decode(np.frombuffer(made[0][1], file.dtype)) == text


def test_what_was_encoded_is_not_encoded_again(many, files, tmp_path):
    vocabulary = build_vocabulary("char", files)
    first = encode_files(files, vocabulary, tmp_path / "1.bin")
    parts = {path.name: path.stat().st_ino for path in many.iterdir()}
    assert len(parts) > 5
    damaged, gone = sorted(parts)[:2]
    content = (many / damaged).read_bytes()
    (many / damaged).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (many / gone).unlink()
    assert encode_files(files, vocabulary, tmp_path / "2.bin").sha256 == first.sha256
    again = {path.name: path.stat().st_ino for path in many.iterdir()}
    assert again.keys() == parts.keys()
    assert {name for name in parts if parts[name] == again[name]} >= parts.keys() - {damaged, gone}
    assert (many / damaged).read_bytes() == content


def test_an_interrupted_encoding_goes_on(many, files, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "processors", lambda: 1)
    vocabulary = build_vocabulary("char", files)
    running, asked = [], []
    start, ask = WorkerPool._start, WorkerPool._ask

    def ask_and_kill(self, setup, job):
        asked.append(job)
        if len(asked) == 4:
            running[0].kill()
            running[0].wait(timeout=60)
        return ask(self, setup, job)

    with monkeypatch.context() as patch:
        patch.setattr(WorkerPool, "_start", lambda self, setup: running.append(start(self, setup)) or running[-1])
        patch.setattr(WorkerPool, "_ask", ask_and_kill)
        with pytest.raises(DataError, match="was killed; is there enough memory"):
            encode_files(files, vocabulary, tmp_path / "1.bin")
    assert all(process.poll() is not None for process in running)
    before = {path.name: path.stat().st_ino for path in many.glob("*.tokens")}
    assert before
    encode_files(files, vocabulary, tmp_path / "2.bin").verify()
    assert before.items() <= {path.name: path.stat().st_ino for path in many.glob("*.tokens")}.items()


def test_errors_of_a_part_come_back(many, files, tmp_path, monkeypatch):
    files[4].write_bytes(b"fine\n" * 2000 + b"\xff\n" + b"fine\n" * 2000)
    with pytest.raises(DataError, match=r"4\.txt: not UTF-8 text \(byte 10,000\)"):
        build_vocabulary("char", files)
    monkeypatch.setenv("UNROLLED_CACHE", str(files[0]))
    with pytest.raises(DataError, match=r"cannot be written .*set UNROLLED_CACHE"):
        encode_files(files, build_vocabulary("byte", files), tmp_path / "1.bin")


def test_the_cache_does_not_grow_for_ever(many, files, tmp_path, monkeypatch):
    vocabulary = build_vocabulary("byte", files)
    encode_files(files, vocabulary, tmp_path / "1.bin")
    total = sum(path.stat().st_size for path in many.iterdir())
    oldest = min(many.iterdir())
    os.utime(oldest, (1, 1))
    files.pop()
    monkeypatch.setattr(tokens, "CACHE_BYTES", total - 1)
    encode_files(files, vocabulary, tmp_path / "2.bin")
    assert 0 < sum(path.stat().st_size for path in many.iterdir()) < total


def test_what_another_process_takes_from_the_cache_is_not_missed(many, files, tmp_path, monkeypatch):
    many.mkdir(parents=True)
    for name in ("part.tmp", "part.tokens"):  # as a file that was there when the folder was listed
        (many / name).symlink_to(tmp_path / "gone")
    monkeypatch.setattr(tokens, "CACHE_BYTES", 0)
    vocabulary = build_vocabulary("char", files)
    assert encode_files(files, vocabulary, tmp_path / "tokens.bin").count


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_cache_that_others_can_write_is_not_used(mode, many, files, tmp_path):
    if not hasattr(os, "getuid"):
        pytest.skip("modes are those of POSIX")
    vocabulary = build_vocabulary("byte", files)
    encode_files(files, vocabulary, tmp_path / "1.bin")
    many.chmod(mode)
    with pytest.raises(DataError, match=r"can be written by .*chmod go-w"):
        encode_files(files, vocabulary, tmp_path / "2.bin")


@pytest.mark.parametrize("put", ["link", "hard link", "writable"])
def test_a_part_that_is_not_the_users_own_is_encoded_anew(put, many, files, tmp_path):
    """Somebody has put it there, with its digest, while the cache was open."""
    if not hasattr(os, "getuid"):
        pytest.skip("modes are those of POSIX")
    vocabulary = build_vocabulary("byte", files)
    first = encode_files(files, vocabulary, tmp_path / "1.bin")
    part = min(many.glob("*.tokens"))
    size = part.stat().st_size - workers.DIGEST_BYTES
    planted = tmp_path / "planted"
    planted.write_bytes(hashlib.sha256(bytes(size)).digest() + bytes(size))
    part.unlink()
    if put == "link":
        part.symlink_to(planted)
    elif put == "hard link":
        part.hardlink_to(planted)
    else:
        part.write_bytes(planted.read_bytes())
        part.chmod(0o666)
    assert encode_files(files, vocabulary, tmp_path / "2.bin").sha256 == first.sha256
    assert planted.read_bytes()[workers.DIGEST_BYTES :] == bytes(size)
    assert part.stat().st_mode & 0o077 == 0


def test_an_unfinished_part_is_not_written_through_a_link(many, files, tmp_path, monkeypatch):
    vocabulary = build_vocabulary("byte", files)
    precious = tmp_path / "precious"
    precious.write_text("precious")
    many.mkdir(parents=True, mode=0o700)
    job = tokens._jobs(files)[0]
    name = workers.encode_to_cache(job, vocabulary, "uint8", str(many))
    os.unlink(name)
    (many / f"{os.path.basename(name)}.{os.getpid()}.tmp").symlink_to(precious)
    assert workers.encode_to_cache(job, vocabulary, "uint8", str(many)) == name
    assert precious.read_text() == "precious"
