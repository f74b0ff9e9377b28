"""Hints in answers: the header Warning, for what was done nevertheless."""

from __future__ import annotations

from collections.abc import Sequence

from jobcloud.model import cut

_MAX_WARNING = 1_000


def warning_text(notes: Sequence[str]) -> str:
    """The notes as one text in ASCII, of at most 1,000 characters."""
    return cut("; ".join(notes), _MAX_WARNING).encode("ascii", "backslashreplace").decode()[:_MAX_WARNING]


def warning_header(notes: Sequence[str]) -> dict[str, str]:
    """The header (RFC 7234, 5.5), or nothing if there are no notes."""
    if not notes:
        return {}
    text = warning_text(notes)
    quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ").replace("\r", " ").replace("\t", " ")
    return {"Warning": f'299 jobcloud "{quoted}"'}
