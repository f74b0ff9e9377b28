"""Elastic-Job-Cloud's own API under /api, for its clients. docs/elastic-job-compat.md lists the differences.

The routes mean the team `default`. They act through the commands and checks of this server's own API.
"""
