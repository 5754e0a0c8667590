"""REST: the edge, the control API and the hot paths."""
