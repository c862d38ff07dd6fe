"""What the workers of all contestants call. Items are digits: text in, text out."""

import time


def same(x):
    return x


def busy(x):
    """Computes for a millisecond of this process's time, whoever else uses the machine."""
    end = time.process_time_ns() + 1_000_000
    while time.process_time_ns() < end:
        pass
    return x
