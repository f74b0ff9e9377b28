"""The part that runs on agents: one executor per app version and agent. Standard library only, CPython >= 3.9."""
