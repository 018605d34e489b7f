"""What stands between the turns of engines that share a process."""

from __future__ import annotations

import time

# At rest: this process takes less than a tenth of a core; looked at for so long, and no longer than the limit.
LOOK_SECONDS, REST_LIMIT = 0.01, 1.0


def rest() -> None:
    """Waits until no thread of this process is at work: those of the engine before may spin for a while."""
    end = time.perf_counter() + REST_LIMIT
    while time.perf_counter() < end:
        start = time.process_time()
        time.sleep(LOOK_SECONDS)
        if time.process_time() - start < 0.1 * LOOK_SECONDS:
            return
