"""Capacity planning: how many hosts a demand needs, which tasks fit and which do not. See docs/planning.md."""
