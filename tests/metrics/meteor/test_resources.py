"""METEOR's data, as it lies in an installed package."""

import gzip
import sys
import zipfile

import pytest

from tests.metrics.meteor.small import small_resources
from unrolled.errors import DataError
from unrolled.metrics import meteor

FILES = {
    "function/english.words": "the\n,\n'\n",
    "nonbreaking/english.prefixes": "# a remark\n\nMr\nNo #NUMERIC_ONLY#\n",
    "synonym/english.exceptions": "mouse\nmice mices\nlouse\nlice\n",
    "synonym/english.synsets": "mouse\n11 12\nrodent\n12\nbox\n13\n",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed `pycocoevalcap` that cannot be imported."""
    folder = tmp_path / "pycocoevalcap" / "meteor" / "data"
    folder.mkdir(parents=True)
    (tmp_path / "pycocoevalcap" / "__init__.py").write_text("raise ImportError('Java')")
    with zipfile.ZipFile(folder.parent / "meteor-1.5.jar", "w") as jar:
        for name, text in FILES.items():
            jar.writestr(name, text)
    (folder / "paraphrase-en.gz").write_bytes(
        gzip.compress(b"0.1\ntwo of\na pair of\n0.2\nbig\nlarge\n0.3\nlarge\nbig\n")
    )
    monkeypatch.delitem(sys.modules, "pycocoevalcap", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder.parent


def test_files_of_the_package(package):
    pytest.importorskip("snowballstemmer", reason="needs the package snowballstemmer")
    found = meteor.find_resources()
    assert found.functions == {"the", ",", "'"}
    assert found.prefixes == {"Mr": False, "No": True}
    assert found.senses("mice") == {11, 12}
    assert found.senses("rodents") == {12}
    assert found.senses("boxes") == {13}
    assert found.senses("boxed") == {13}
    assert found.senses("unknown") == frozenset()
    assert found.stem("running") == found.stem("runs")
    assert "pycocoevalcap" not in sys.modules


def test_paraphrases_between_the_texts_only(package):
    pytest.importorskip("snowballstemmer", reason="needs the package snowballstemmer")
    found = meteor.find_resources()
    found.prepare([["two", "of", "them"]], [["a", "pair", "of", "them"]])
    assert found.paraphrases == {("two", "of"): [("a", "pair", "of")]}
    found.prepare([["big", "large"]], [["large"]])
    assert found.paraphrases == {("big",): [("large",)], ("large",): [("big",)]}
    found.prepare([["big", "large"]], [["red"]])
    assert found.paraphrases == {}


def test_a_table_of_several_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("unrolled.metrics.meteor.resources.BLOCK", 5)
    found = small_resources(tmp_path)
    found.prepare([["before", "strike"]], [["in", "front", "of", "kick"]])
    assert found.paraphrases == {("in", "front", "of"): [("before",)], ("kick",): [("strike",)]}


def test_a_package_without_the_data(package):
    pytest.importorskip("snowballstemmer", reason="needs the package snowballstemmer")
    (package / "meteor-1.5.jar").unlink()
    with pytest.raises(DataError, match=r"meteor-1.5.jar: not found; install pycocoevalcap"):
        meteor.find_resources()


def test_no_package(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert meteor.find_resources() is None
    assert meteor.missing() == "pycocoevalcap snowballstemmer"
