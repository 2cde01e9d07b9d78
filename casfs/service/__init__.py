"""Composition roots: the daemons of a mount and of the collector, put together from the floors below.

Used by the command line only. State: what a daemon does by the clock; owned by its event loop's thread.
"""
