"""The main program of an executor. The agent starts it in the sandbox of the executor."""

from __future__ import annotations

import os
import sys

from jobcloud.executor.warden import start_warden


def main() -> int:
    """Run the executor. Returns the exit code.

    0: the executor has finished its work, or was asked to end. 2: the environment is not that of a Mesos executor.
    3: the agent never accepted the subscription. 4: the agent is gone. 5: the agent refused the executor.
    """
    family = os.urandom(16).hex()
    warden = start_warden(family)
    # The warden keeps in memory all modules that were imported before its fork. So the other modules come after it.
    from jobcloud.executor.daemon import serve
    from jobcloud.executor.settings import SettingsError, read_settings

    try:
        settings = read_settings(os.environ)
    except SettingsError as error:
        print(f"jobcloud executor: {error}", file=sys.stderr)
        return 2
    return serve(settings, family, warden)


if __name__ == "__main__":
    sys.exit(main())
