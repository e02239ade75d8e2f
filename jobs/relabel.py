"""Door for `ray job submit … -- python jobs/relabel.py CONFIG …`: the words of `emer relabel`.

A Ray job runs once. So the work is done by a driver in a process of its own, and a driver that dies
is started again in place, up to EMER_JOB_RETRIES times (default 3); it resumes. SIGTERM is handed
on.
"""

import os
import signal
import subprocess
import sys
from types import FrameType

RESUME_ME = 75
"""Exit code of a driver that stopped because it was asked to."""


def main(arguments: list[str]) -> int:
    """Run the driver until it ends by itself; return its exit code."""
    asked = False
    retries = int(os.environ.get("EMER_JOB_RETRIES", "3"))
    driver: subprocess.Popen[bytes] | None = None

    def hand_on(number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        if driver is not None:
            driver.send_signal(number)

    signal.signal(signal.SIGTERM, hand_on)
    for attempt in range(retries + 1):
        driver = subprocess.Popen([sys.executable, "-m", "emer_ray.cli", "relabel", *arguments])
        code = driver.wait()
        died = code < 0 or code == RESUME_ME
        if asked or not died or attempt == retries:
            break
        left = retries - attempt
        print(f"the driver ended with {code}; starting it again, {left} tries left", flush=True)
    return RESUME_ME if asked and code < 0 else abs(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
