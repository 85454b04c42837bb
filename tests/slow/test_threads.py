"""The native programs under the thread sanitizer: the same C, its threads made by pthreads, which it knows."""

import re
import shutil

import pytest
import torch

from tests.programs import completed
from unrolled.cells import CELLS
from unrolled.unroll.compiled import PRODUCT
from unrolled.unroll.layout import Layout
from unrolled.unroll.plan import Plan

MAIN = r"""
#include <pthread.h>
#include <stdio.h>
enum { THREADS = 3, STEPS = 5, ROWS = %(rows)d, ARRAYS = %(arrays)d, ELEMENTS = 1 << 21 };
static pthread_barrier_t meeting;
static REAL *arrays[ARRAYS], *packed, *scratch;
static long strides[64];
%(program)s
static REAL *fill(void) {
  REAL *made = malloc(ELEMENTS * sizeof(REAL));
  for (long k = 0; k < ELEMENTS; k++) made[k] = (REAL)(k %% 7 - 3) / 16;
  return made;
}
static void *work(void *number) {
  part(arrays, strides, STEPS, ROWS, THREADS, ELEMENTS / THREADS, 1, packed, scratch, &tools, (long)number, THREADS);
  return 0;
}
int main(void) {
  for (long k = 0; k < ARRAYS; k++) arrays[k] = fill();
  packed = fill(), scratch = fill();
  for (long k = 0; k < 64; k += 2) strides[k] = 64, strides[k + 1] = 1;
  pthread_barrier_init(&meeting, 0, THREADS);
  pthread_t threads[THREADS];
  for (long k = 0; k < THREADS; k++) pthread_create(&threads[k], 0, work, (void *)k);
  for (long k = 0; k < THREADS; k++) pthread_join(threads[k], 0);
  return 0;
}
"""


def by_pthreads(source, rows):
    """A program's source with `run` as what one thread does, and a main function that starts three."""
    start = source.index("void run(")
    program, headers = source[start:], source[:start]
    program = program.replace("void run(", "static void part(").replace(
        "const struct tools *tools)", "const struct tools *tools, long thread, long all)"
    )
    program = re.sub(r"#ifdef _OPENMP.*?#endif\n", "", program, flags=re.DOTALL)
    program = re.sub(r"#pragma omp parallel.*", "", program)
    assert "#pragma omp barrier" in program
    program = program.replace("#pragma omp barrier", "pthread_barrier_wait(&meeting);")
    arrays = 1 + max(map(int, re.findall(r"= p\[(\d+)\]", program)))
    return headers + PRODUCT.read_text() + MAIN % {"arrays": arrays, "rows": rows, "program": program}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc has the sanitizer that is meant here")
@pytest.mark.parametrize("name", ["lstm", "gru", "ln-lstm", "mut3", "peephole-full"])
@pytest.mark.parametrize(("rows", "size"), [(7, 24), (1, 400)])
@pytest.mark.parametrize("broken", [False, True])
def test_threads_do_not_race(name, rows, size, broken, tmp_path):
    cell = CELLS[name](size, size)
    plan = Plan(cell, torch.float32, torch.device("cpu"))
    gradients = plan.gradients((True,) * (len(plan.parameter_names) + 1))
    training = Layout(plan, torch.float32).training(gradients)
    for k, part in enumerate((training.forward, training.backward)):
        text = by_pthreads(part.program.source, rows)
        if broken:  # without their meetings they must be caught
            text = text.replace("pthread_barrier_wait(&meeting);", "")
        code, program = tmp_path / f"{k}.c", tmp_path / f"{k}"
        code.write_text(text)
        flags = ["-std=gnu11", "-O1", "-g", "-march=native", "-fsanitize=thread", "-pthread"]
        completed(["gcc", *flags, str(code), "-o", str(program), "-lm"], check=True)
        result = completed([str(program)])
        if broken:
            assert "data race" in result.stderr
        else:
            assert (result.returncode, result.stderr) == (0, "")
