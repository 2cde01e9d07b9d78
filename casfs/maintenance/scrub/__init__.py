"""Reading every blob again, over months, and healing what is damaged from a good copy.

Uses the namespace and the filestore. State: the rows of damage and of the round that is under way.
"""
