"""``process_and_children_s``: CPU time with that of worker processes."""

from __future__ import annotations

import time

try:
    import resource
except ImportError:  # Windows does not have it
    resource = None


def process_and_children_s() -> float:
    """Return CPU seconds of this process, and of its children that have ended.

    Workers of a ``DataLoader`` end with their epoch, so their time counts in the epoch. Where the
    system does not report the time of children (Windows), it is that of this process.
    """
    own = time.process_time()
    if resource is None:
        return own
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own + children.ru_utime + children.ru_stime
