"""Whole histories of the scheduler in virtual time, every one made from a seed: see `promise` for what must hold.

Real: the core, the leader's loop logic, the stored records, the driver and its translation. Simulated: Mesos (the dev
cluster's own machines without their shell), the executors, the store, the operators and the clock. No threads, no
real time, no randomness but the seed's. `python -m tests.simulation --help`.
"""
