"""What keeps a store sound: collection, checks and repair, scrubbing and healing.

Uses `fs` and `trash`, knows nothing of daemons. State: rows of the store only; each room says which.
"""
