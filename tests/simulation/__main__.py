"""The command line of the simulator."""

from .runner import main

if __name__ == "__main__":
    raise SystemExit(main())
