import pytest

from tests.cli.shared import SMALL
from unrolled.cli import main


@pytest.fixture
def train(text_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *words: main(["train", "lm", "--data", str(text_file), *SMALL, *words])


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    text = folder / "text.txt"
    text.write_text("Zoë said: grüß dich, naïve 世界!\n" * 120, encoding="utf-8")
    words = ["train", "lm", "--data", str(text), *SMALL, "--max-steps", "400", "--learning-rate", "0.03"]
    assert main([*words, "--hidden-size", "32", "--out", str(folder / "run"), "--test-fraction", "0.05"]) == 0
    return folder / "run"
