"""The console: pages for browsers, which read and act through the public API alone."""
