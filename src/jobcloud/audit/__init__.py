"""The audit log: who did what, in files whose entries form a hash chain (docs/audit.md)."""
