"""What the commands that train share: a new run makes its model once."""

import pytest

from tests.cli.shared import SMALL
from unrolled.cli import main
from unrolled.models import EncoderDecoder, LanguageModel
from unrolled.models.tree import TreeClassifier

STEPS = ["--max-steps", "2", "--eval-every", "2", "--sample-every", "2"]
TINY = ["--hidden-size", "4", "--embedding-size", "4", "--batch-size", "2", *STEPS]


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("good news, bad news\n" * 40)
    (tmp_path / "source").write_text("one two\nthree\n" * 20)
    (tmp_path / "glove").write_text("good 1 0 0 0\nbad 0 1 0 0\n")
    (tmp_path / "mails").write_text("Lunch on Monday?\tYes, Monday.\n" * 20)
    for name in ("train", "dev"):
        (tmp_path / f"{name}.txt").write_text("(2 (4 good) (0 bad))\n" * 4)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (LanguageModel, ["lm", "--data", "text", *SMALL, *STEPS]),
        (LanguageModel, ["lm", "--data", "text", "--level", "word", *SMALL, *STEPS, "--vectors", "glove"]),
        (EncoderDecoder, ["translate", "--source", "source", "--target", "source", "--level", "word", *TINY]),
        (EncoderDecoder, ["reply", "--pairs", "mails", "--level", "word", *TINY]),
        (TreeClassifier, ["tree", "--data", ".", *TINY, "--vectors", "glove"]),
    ],
)
def test_a_new_run_makes_its_model_once(kind, words, files, monkeypatch):
    made, construct = [], kind.__init__

    def counted(self, *args, **options):
        made.append(type(self))
        construct(self, *args, **options)

    monkeypatch.setattr(kind, "__init__", counted)
    assert main(["train", *words, "--out", "run"]) == 0
    assert made == [kind]
    assert main(["train", words[0], "--resume", "run", "--max-steps", "4"]) == 0
    assert made == [kind, kind]
