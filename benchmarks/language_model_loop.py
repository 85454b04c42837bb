"""The whole loop of `unrolled train lm` at its defaults, against a plain script over `nn.LSTM` (lm_script.py).

    python benchmarks/language_model_loop.py TEXT [--steps 500] [--rounds 5]

Both run alternately, each in its own process. The time covers the updates after the first fifty and all that the loop
does between them (progress, log, samples and validations). The script prints each round's times, the ratio of the
medians, and the share of our loop that is spent outside the model's forward and backward passes and the optimiser.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def train(text: str, steps: int) -> dict[str, float]:
    """Return the seconds of the updates after the first fifty, and of the model and the optimiser within them."""
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

    from unrolled.cli import main
    from unrolled.tasks.language import LanguageTask

    ends: list[float] = []
    inside = [0.0]
    began = [0.0]

    def timed(function):
        def run(*arguments, **options):
            started = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                inside[0] += time.perf_counter() - started

        return run

    def after(*_) -> None:
        now = time.perf_counter()
        inside[0] += now - began[0]
        ends.append(now)
        if len(ends) == 50:
            inside[0] = 0.0

    register_optimizer_step_pre_hook(lambda *_: began.__setitem__(0, time.perf_counter()))
    register_optimizer_step_post_hook(after)
    torch.Tensor.backward = timed(torch.Tensor.backward)
    LanguageTask.loss = timed(LanguageTask.loss)
    with tempfile.TemporaryDirectory() as out:
        words = ["train", "lm", "--data", text, "--out", f"{out}/run", "--max-steps", str(steps)]
        if main(words):
            raise SystemExit("unrolled train lm failed")
    return {"seconds": ends[-1] - ends[49], "inside": inside[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        Path(given.one).write_text(json.dumps(train(given.text, given.steps)))
        return
    script, ours, outside = [], [], []
    for _ in range(given.rounds):
        plain = [sys.executable, str(Path(__file__).with_name("lm_script.py")), given.text, str(given.steps)]
        script.append(float(subprocess.run(plain, check=True, capture_output=True, text=True).stdout))
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            command = [sys.executable, __file__, given.text, "--steps", str(given.steps), "--one", file.name]
            subprocess.run(command, check=True, capture_output=True)
            result = json.loads(Path(file.name).read_text())
        ours.append(result["seconds"])
        outside.append(1 - result["inside"] / result["seconds"])
        print(f"script {script[-1]:.1f} s, ours {ours[-1]:.1f} s, {outside[-1]:.1%} of it outside", flush=True)
    ratio = statistics.median(script) / statistics.median(ours)
    print(f"the script takes {ratio:.2f} times as long; outside model and optimiser {statistics.median(outside):.1%}")


if __name__ == "__main__":
    main()
