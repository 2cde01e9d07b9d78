"""Further digests of what is kept already: which there are, and computing those that are lacking.

Uses the namespace, and the filestore to read. State: the rows of blob_digest, and of the run that is under
way.
"""
