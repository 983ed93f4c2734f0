"""Formats of data on streams: frames and values."""
