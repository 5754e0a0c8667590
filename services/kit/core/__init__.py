"""The ground of the kit: time, ids, settings, logs, spans, and rules that need no input or output."""
