"""Signed webhooks: an outside system fires a job by a request that it signs with a shared key."""
