"""jobcloud: a private job cloud. Importing it loads nothing else; import the module you need."""

__version__ = "0.1.0"
