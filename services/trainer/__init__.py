"""Data sets and runs: from rows of text to a judged, signed model artifact."""
