"""Several processes, parts of a batch and bf16: the same training as by one process, whole, in float32."""

import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.programs import completed, started, wait_until
from tests.training.test_loop import make, run, weights
from unrolled.cli import main
from unrolled.errors import ConfigurationError
from unrolled.layers.nest import join_states, take_state
from unrolled.tasks.language import LanguageTask
from unrolled.training import Trainer, open_run
from unrolled.training.processes import Processes, join

WORDS = [
    *("--hidden-size", "8", "--num-layers", "2", "--embedding-size", "4", "--dropout", "0", "--batch-size", "5"),
    *("--seq-length", "16", "--eval-every", "100", "--sample-every", "0", "--log-every", "1", "--device", "cpu"),
]


def children(process):
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(number) for number in path.read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the processes by Linux's /proc")
def test_two_processes_train_as_one_and_a_lost_one_ends_the_job(tmp_path, text_file, capsys):
    data = ["train", "lm", "--data", str(text_file), *WORDS]
    words = [*data, "--max-steps", "1000000", "--lr-schedule", "constant", "--out", str(tmp_path / "two")]
    assert main([*data, "--max-steps", "100", "--lr-schedule", "constant", "--out", str(tmp_path / "one")]) == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "unrolled", *words]
    with started(command) as job:
        metrics = tmp_path / "two" / "metrics.jsonl"
        wait_until(lambda: metrics.exists() and metrics.read_bytes().count(b"\n") > 115, job)
        os.kill(children(job)[1], signal.SIGKILL)
        out, err = job.communicate(timeout=60)
    assert job.returncode != 0
    said = [line for line in err.splitlines() if line.startswith("unrolled: error:")]
    assert len(said) == 1
    assert "another process of this training was lost at step" in said[0]
    assert f"continue with --resume {tmp_path / 'two'}" in said[0]
    assert out.count("2 processes") == 1
    one, two = ([r for r in open_run(tmp_path / name).metrics() if r["step"] <= 100] for name in ("one", "two"))
    assert len(one) == len(two) == 101
    for expected, found in zip(one, two, strict=True):
        for name in {"loss", "validation_loss", "gradient_norm"} & set(expected):
            assert expected[name] == pytest.approx(found[name], rel=1e-4)
    # The checkpoint of two is one's to go on from, and holds the state of all five streams.
    last = LanguageTask(open_run(tmp_path / "two"))
    resumed = Trainer(last, last.config.training, last.run, resume=True)
    step = resumed.position.step
    assert step >= 100
    assert [part.size(-2) for part in resumed.carried] == [5, 5]
    capsys.readouterr()
    assert main(["train", "lm", "--resume", str(tmp_path / "two"), "--max-steps", str(step + 20)]) == 0
    assert f"finished after {step + 20} steps" in capsys.readouterr().out


@pytest.mark.parametrize("options", [{}, {"backward_length": 3}])
def test_a_batch_read_in_parts_has_the_same_gradients(tmp_path, text_file, options):
    found = []
    for parts in (1, 2, 5):
        model = {"dropout": 0.0, "num_layers": None, "hidden_size": (5, 7)}
        task = make(tmp_path / str(parts), text_file, model, batch_size=5, accumulate=parts, clip_norm=0.1, **options)
        run(task)
        found.append((weights(task), [r["loss"] for r in task.run.metrics() if "loss" in r]))
    for others, losses in found[1:]:
        torch.testing.assert_close(others, found[0][0], rtol=1e-4, atol=1e-6)
        assert losses == pytest.approx(found[0][1], rel=1e-5)


@pytest.mark.filterwarnings("ignore:this processor has no bf16:unrolled.errors.FallbackWarning")
def test_bf16_stays_near_float32(tmp_path, text_file):
    losses = []
    for precision in ("float32", "bf16"):
        task = make(tmp_path / precision, text_file, {"dropout": 0.0}, precision=precision, max_steps=30)
        run(task)
        assert all(parameter.dtype == torch.float32 for parameter in task.model.parameters())
        losses.append([r["loss"] for r in task.run.metrics() if "loss" in r])
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_the_plain_case_does_not_import_fabric():
    script = "import sys, unrolled.cli.train, unrolled.tasks.language, unrolled.training; sys.exit('lightning_fabric' in sys.modules)"
    assert completed([sys.executable, "-c", script]).returncode == 0
    assert type(join(torch.device("cpu"), "float32")) is Processes


@pytest.mark.parametrize(("count", "size"), [(5, 2), (7, 3), (3, 3), (32, 5)])
def test_streams_are_divided_completely(count, size):
    shares = []
    for number in range(size):
        processes = Processes()
        processes.rank, processes.size = number, size
        shares.append(range(count)[processes.share(count)])
    assert [stream for share in shares for stream in share] == list(range(count))
    assert min(map(len, shares)) >= 1
    state = (torch.randn(2, count, 3), (torch.randn(count, 4), torch.randn(count, 5)))
    parts = [take_state(state, share.start, share.stop) for share in shares]
    assert str(join_states(parts)) == str(state)
    assert take_state(None, 0, 1) is None
    assert join_states([None, None]) is None
    assert isinstance(join_states([state[0]]), Tensor)


def test_more_processes_than_streams(tmp_path, text_file):
    task = make(tmp_path / "run", text_file)
    many = Processes()
    many.size = 3
    with pytest.raises(ConfigurationError, match="`batch_size=2`: each of the 3 processes needs at least one"):
        Trainer(task, task.config.training, task.run, processes=many)
