"""A helper process answers like a function call, and its end is never silent."""

import os
import subprocess
import sys

import pytest

from canvas_robot.data.helper_process import HelperProcess, HelperProcessError


@pytest.fixture
def helper():
    helper = HelperProcess()
    yield helper
    helper.close()


def test_it_runs_in_another_process_and_stays_the_same_one(helper):
    first, second = helper.call(os.getpid), helper.call(os.getpid)
    assert first == second != os.getpid()


def test_what_the_function_prints_does_not_mix_with_the_answer(helper):
    assert helper.call(print, "noise") is None
    assert helper.call(os.write, 1, b"noise\n") == 6


def test_the_functions_error_is_raised_with_the_helpers_traceback(helper):
    with pytest.raises(ValueError, match="invalid literal") as caught:
        helper.call(int, "seven")
    assert "In the helper process" in caught.value.__notes__[0]
    assert helper.call(int, "7") == 7


def test_a_helper_that_dies_is_reported_and_replaced(helper):
    with pytest.raises(HelperProcessError, match=r"_exit: expected an answer .* code 3"):
        helper.call(os._exit, 3)
    assert helper.call(int, "7") == 7


def test_a_closed_helper_starts_again(helper):
    first = helper.call(os.getpid)
    helper.close()
    assert helper.call(os.getpid) != first


def test_a_script_without_a_main_guard_can_use_it(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from canvas_robot.data.helper_process import HelperProcess\n"
        "print(HelperProcess().call(max, 3, 4))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-W", "error", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("4\n", "", 0)
