"""What a backbone takes in memory is shown by the command that loads it, beside its results."""

import subprocess
import sys


def test_a_command_that_loads_a_backbone_shows_what_it_takes_once(tmp_path):
    code = "from canvas_robot.cli import main; main()"
    arguments = ["prompts", "--backbone", "tiny", "--out", str(tmp_path), "lift the carrot"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("memory on cpu, ") == done.stderr.count("text_encoder weights ") == 1
    assert "weights" not in done.stdout
