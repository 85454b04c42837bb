"""Jobs come back in order, and what goes wrong in a process is an error of this one."""

import os
import signal

import pytest

from unrolled.data.process_pool import ProcessPool, answer_jobs
from unrolled.errors import ConfigurationError, DataError


def main():
    """What the processes of these tests run."""
    answer_jobs(prepare)


def prepare(setup):
    if setup == "unknown":
        raise ConfigurationError("no such setup")

    def work(job):
        if job == "fail":
            raise DataError("this job fails")
        if job == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        return [setup, job, os.getpid(), os.environ["OF_THE_POOL"]]

    return work


def pool(count=2):
    return ProcessPool(__name__, count, "tests", {"OF_THE_POOL": "yes"})


def test_answers_come_in_order_from_as_many_processes_as_were_asked_for():
    with pool() as running:
        found = list(running.ask("first", range(20)))
        assert [one[:2] for one in found] == [["first", job] for job in range(20)]
        assert 1 <= len({one[2] for one in found}) <= 2
        assert os.getpid() not in {one[2] for one in found}
        assert {one[3] for one in found} == {"yes"}
        assert [one[0] for one in running.ask("second", range(2))] == ["second"] * 2
        processes = list(running._processes)
    assert all(process.poll() is not None for process in processes)


@pytest.mark.parametrize(
    ("setup", "jobs", "said"),
    [
        ("first", [1, "fail", 2], "this job fails"),
        ("first", ["die"], "a process that tests was killed; is there enough memory"),
        ("unknown", [1], "no such setup"),
    ],
)
def test_what_goes_wrong_in_a_process_is_an_error(setup, jobs, said):
    with pool(1) as running, pytest.raises(DataError, match=said):
        list(running.ask(setup, jobs))
