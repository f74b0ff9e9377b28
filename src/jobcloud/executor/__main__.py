"""The command that the agent starts in the sandbox of one app version."""

from __future__ import annotations

import os
import sys

from jobcloud.executor.daemon import serve
from jobcloud.executor.settings import SettingsError, read_settings


def main() -> int:
    """Exit code: 0 done, 2 not started by an agent, 3 never subscribed, 4 the agent is gone, 5 refused by the agent."""
    try:
        settings = read_settings(os.environ)
    except SettingsError as error:
        print(f"jobcloud executor: {error}", file=sys.stderr)
        return 2
    return serve(settings)


if __name__ == "__main__":
    sys.exit(main())
