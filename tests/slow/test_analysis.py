"""Analysis at full size."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from unrolled.analysis.hypotheses import hypotheses_for
from unrolled.analysis.units import Activations, Unit, find_units
from unrolled.cli import main
from unrolled.data import read_text, standard_library
from unrolled.tasks.sentiment import SentimentTask
from unrolled.training import open_run

pytestmark = pytest.mark.slow


def test_a_megabyte_and_512_units_are_scored_in_a_minute():
    text = ""
    for block in read_text(standard_library()):
        text += block
        if len(text) >= 1_000_000:
            break
    text = text[:1_000_000]
    units = tuple(Unit(1, "h", k) for k in range(512))
    generator = np.random.default_rng(0)
    values = np.stack([generator.standard_normal(len(text), dtype=np.float32).astype(np.float16) for _ in units])
    started = time.monotonic()
    findings = find_units(Activations(units, values), hypotheses_for(text, "python"))
    seconds = time.monotonic() - started
    print(f"{seconds:.1f} s")
    assert len(findings) > 10
    assert not any(finding.confirmed for finding in findings)
    assert seconds < 60


def test_sentiment_of_trees(tmp_path):
    root = Path(os.environ.get("UNROLLED_DATA", Path(__file__).parents[2] / "shared" / "data")) / "sst"
    if not root.exists():
        pytest.skip(f"needs sst/train.txt and sst/dev.txt below {root.parent} (set UNROLLED_DATA)")
    assert main(["train", "tree", "--data", str(root), "--out", str(tmp_path / "run")]) == 0
    assert SentimentTask(open_run(tmp_path / "run")).load().score_trees().root.binary >= 0.8
