"""What stands between the turns of engines that share a process."""

from __future__ import annotations

import time

# At rest: in so many seconds, this process takes less than a tenth of a core.
LOOK_SECONDS = 0.01
# What is not at rest after so many seconds is waited for no longer.
REST_LIMIT = 1.0


def rest() -> None:
    """Waits until no thread of this process is at work, or for a second: those of the engine before may spin."""
    end = time.perf_counter() + REST_LIMIT
    while time.perf_counter() < end:
        start = time.process_time()
        time.sleep(LOOK_SECONDS)
        if time.process_time() - start < 0.1 * LOOK_SECONDS:
            return
