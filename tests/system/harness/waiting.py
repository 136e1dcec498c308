# SPDX-License-Identifier: Apache-2.0
"""Waiting for what shall come, never for a time in which it should have come."""
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
