"""What runs on agents: one executor per app version and agent, standard library only, CPython >= 3.9."""
