"""How many hosts a demand needs, what fits and what does not: a library beside the scheduler, described in
docs/planning.md."""
