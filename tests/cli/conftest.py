import pytest

from tests.cli.shared import SMALL, trained_on
from unrolled.cli import main


@pytest.fixture
def train(text_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *words: main(["train", "lm", "--data", str(text_file), *SMALL, *words])


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    words = ["--max-steps", "400", "--learning-rate", "0.03", "--hidden-size", "32", "--test-fraction", "0.05"]
    text = "Zoë said: grüß dich, naïve 世界!\n" * 120
    return trained_on(tmp_path_factory.mktemp("trained"), "text.txt", text, *words)
