"""Tables of a user's own: reading of files, time, frequency, calendar, categories."""

from ragged.data.tables.source import Tables

__all__ = ["Tables"]
