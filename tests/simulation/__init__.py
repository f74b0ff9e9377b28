"""Whole histories of the scheduler in virtual time, each made from a seed. `promise` lists the checks.

Real: the core, the leader's logic, the stored records, the driver and its translation. Simulated: Mesos (the state
machines of the dev cluster), executors, store, operators and clock. No threads, no real time, and no randomness apart
from the seed. See docs/simulation.md, and `python -m tests.simulation --help`.
"""
