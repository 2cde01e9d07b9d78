"""Composition roots: the daemons, put together from the floors below."""
