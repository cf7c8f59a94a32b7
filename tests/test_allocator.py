"""Laws of what a process does with memory that it gave back."""

import os
import subprocess
import sys

# Prints how many pages are fetched to make and drop a hundred pictures a second time.
PROGRAM = """
import resource
import sys
from canvas_robot.allocator import keep_freed_memory

said = keep_freed_memory() if sys.argv[1] == "keep" else None

def pictures():
    for _ in range(10):
        kept = [bytearray(b"x" * 900_000) for _ in range(10)]
        del kept

pictures()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
pictures()
print(said, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def fetched(what: str, **environment: str) -> tuple[str, int]:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, what],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    said, pages = run.stdout.split()
    return said, int(pages)


def test_memory_that_was_given_back_is_used_again():
    said, pages = fetched("keep")
    assert said == "True" and pages < 100
    assert fetched("leave")[1] > 10_000


def test_what_the_environment_says_of_it_stands():
    said, pages = fetched("keep", MALLOC_TRIM_THRESHOLD_="131072", MALLOC_MMAP_THRESHOLD_="131072")
    assert said == "False" and pages > 10_000
