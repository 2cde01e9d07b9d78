"""What keeps a store sound: collection, checks and repair, scrubbing and healing.

Above `fs` and `trash`, knows nothing of daemons. Each room here says what state it has.
"""
