"""A replacement of the distribution http-parser: the part that pymesos uses."""
