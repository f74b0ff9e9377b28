"""A stand-in for the distribution http-parser: what pymesos uses of it."""
