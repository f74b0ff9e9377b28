"""Elastic-Job-Cloud's own API under /api, for its clients. docs/elastic-job-compat.md lists the differences.

The routes see only the team `default`. They use the commands and checks of this server's own API.
"""
