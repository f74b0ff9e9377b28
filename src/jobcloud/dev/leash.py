"""`python -m jobcloud.dev.leash PID COMMAND…`: become COMMAND, and be killed when the process PID, our parent, ends.

However the parent ends, kill -9 included: the kernel keeps the leash (PR_SET_PDEATHSIG, prctl(2)), and execve keeps it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, *command = sys.argv[1:]
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        sys.exit(f"prctl failed: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != int(parent):  # it ended before the leash was on
        sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606 - no shell is meant


if __name__ == "__main__":
    main()
