"""`python -m jobcloud.dev.parent_death PID COMMAND…` runs COMMAND and ties its life to its parent, the process PID.

When the parent ends for any reason, the kernel sends SIGKILL to COMMAND (PR_SET_PDEATHSIG, prctl(2)). The setting
survives execve.
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
    if os.getppid() != int(parent):  # the parent ended before the signal was set
        sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606 - runs without a shell on purpose


if __name__ == "__main__":
    main()
