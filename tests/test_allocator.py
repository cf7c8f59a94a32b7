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


def fetched(what: str, program: str = PROGRAM, **environment: str) -> tuple[str, int]:
    run = subprocess.run(
        [sys.executable, "-c", program, what],
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


# Prints how many pages a thread fetches that makes pictures for the first time, where another one
# fetched memory before it.
THREADS = """
import resource
import sys
import threading
from canvas_robot.allocator import fetch_memory, keep_freed_memory, share_memory

keep_freed_memory()
said = share_memory() if sys.argv[1] == "share" else None
fetch_memory(32 << 20)

def pictures():
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    kept = [bytearray(b"x" * 900_000) for _ in range(10)]
    print(said, resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before)

thread = threading.Thread(target=pictures)
thread.start()
thread.join()
"""


def test_memory_that_one_thread_fetched_is_there_for_the_others():
    said, pages = fetched("share", program=THREADS)
    assert said == "True" and pages < 100
    assert fetched("leave", program=THREADS)[1] > 1_000


def test_what_the_environment_says_of_shares_stands():
    said, pages = fetched("share", program=THREADS, MALLOC_ARENA_MAX="8")
    assert said == "False" and pages > 1_000
