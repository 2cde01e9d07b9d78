"""Repositories: directories in the root that have a layout and rules, and what follows from names in them.

Lives here: which there are (`registry`), their rules (`rules`, `patterns`) and who enforces them (`policy`,
`guard`, `releases`, `quota`, `refusals`), what follows from each name (`following`), and all of it put
together with the file system (`filesystem`).
Uses `fs`, which does not know it, the trash and the layouts. State: what the rows say, what happened to names
and has no rows yet, and how much repositories with a quota have; owned by the thread that runs the file
system.
"""
