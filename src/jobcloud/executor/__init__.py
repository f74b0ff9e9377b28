"""The executor, which runs on agents: one process for each app version and agent.

The code needs only CPython 3.9 or newer and its standard library.
"""
