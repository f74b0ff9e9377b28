"""The history: what runs and attempts did, in a SQL database, written by a thread of its own (docs/history.md)."""
