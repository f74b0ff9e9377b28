"""Placement by name, under the path that users import: ``jobcloud.placer``."""

from jobcloud.match.placer import Placer, Shape, Why

__all__ = ["Placer", "Shape", "Why"]
