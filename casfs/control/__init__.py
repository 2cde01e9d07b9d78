"""How commands talk to the daemon that has a store mounted, and what they do when there is none.

Uses the file system and maintenance without a daemon only; knows neither FUSE nor the daemon's parts.
State: the socket in STORE/run, which the daemon owns.
"""
