"""Collection: what nothing refers to is removed, beside a mount in use as well as alone; pins put that off.

Uses the namespace and the filestore, and `fs` for what the daemon of a mount does. State: the rows of runs
and pins; in memory only what one run knows.
"""
