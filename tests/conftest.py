import gc
import os
from pathlib import Path

import pytest
import torch
from hypothesis import register_random, settings

# Compiled cells stay from run to run, apart from the user's own.
os.environ.setdefault("UNROLLED_CACHE", str(Path(__file__).parents[1] / ".pytest_cache" / "unrolled"))
os.environ.setdefault("UNROLLED_STATE", str(Path(__file__).parents[1] / ".pytest_cache" / "state"))

if "PYTEST_XDIST_WORKER" in os.environ:  # each worker has a core to itself, and so have the programs it starts
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"

# Elsewhere every run looks at other examples; continuous integration at the same ones.
settings.register_profile("unrolled", deadline=None, max_examples=30, print_blob=True, derandomize="CI" in os.environ)
settings.load_profile("unrolled")


def pytest_collection_finish() -> None:
    """What was imported stays; and traced graphs come and go so fast that the collector took a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


#: Files that hold native code, compiled as users have it, to the eager loop and to PyTorch.
NATIVE = {"test_planned", "test_products", "test_native", "test_torch_parity", "test_many_calls"}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Unless the numbers of native code are the subject, steps are compiled without optimisation, four times as fast."""
    with pytest.MonkeyPatch.context() as patch:
        if item.path.stem not in NATIVE and not item.get_closest_marker("slow"):
            patch.setenv("UNROLLED_CFLAGS", "-O0")
        return (yield)


class _TorchRandom:
    """PyTorch's generator as Hypothesis wants it, so that an example that failed draws the same numbers again."""

    seed = staticmethod(torch.manual_seed)
    getstate = staticmethod(torch.get_rng_state)
    setstate = staticmethod(torch.set_rng_state)


_torch_random = _TorchRandom()
register_random(_torch_random)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _same_numbers_every_time():
    torch.manual_seed(0)


@pytest.fixture
def text_file(tmp_path) -> Path:
    """A small text with a pattern that a net can learn, and characters beyond ASCII."""
    path = tmp_path / "text.txt"
    path.write_text("Zoë said: grüß dich, naïve 世界!\n" * 120, encoding="utf-8")
    return path


@pytest.fixture
def shakespeare() -> Path:
    """The tinyshakespeare file, where UNROLLED_DATA or ../shared/data has it."""
    root = Path(os.environ.get("UNROLLED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    path = root / "tinyshakespeare" / "input.txt"
    if not path.exists():
        pytest.skip(f"needs tinyshakespeare/input.txt below {root} (set UNROLLED_DATA)")
    return path
