"""The secrets of jobs: their sources, and the one-time tokens with which executors fetch them."""
