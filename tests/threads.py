"""What a call does in a thread of its own, so that the tests' own thread stays as it is."""

import threading


def in_a_thread(call):
    """What it returns."""
    said = []
    thread = threading.Thread(target=lambda: said.append(call()))
    thread.start()
    thread.join()
    return said[0]
