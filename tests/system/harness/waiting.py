# SPDX-License-Identifier: Apache-2.0
"""Waiting for what shall come, never for a time in which it should have come."""
import threading
import time


def until(condition, seconds, what, pause=0.01):
    """Ask again and again until it is true; returns what it returned. what: a text, or a function that makes one."""
    end = time.monotonic() + seconds
    while True:
        last = time.monotonic() > end  # asked once more after the end: this process may have stood still itself
        answer = condition()
        if answer:
            return answer
        if last:
            raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what}")
        time.sleep(pause)


class Stillness:
    """How long this process, and so the host, stood still at most, from here to the end()."""

    def __init__(self):
        self._most = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stillness", daemon=True)
        self._thread.start()

    def _watch(self):
        last = time.monotonic()
        while not self._ended.wait(0.05):
            now = time.monotonic()
            self._most = max(self._most, now - last)
            last = now
        self._most = max(self._most, time.monotonic() - last)

    def end(self):
        self._ended.set()
        self._thread.join()
        return self._most
