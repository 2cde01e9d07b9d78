"""Rules of directories in the root, by their names."""

from __future__ import annotations

from collections.abc import Mapping

from casfs.fs.inodes import Inode
from casfs.namespace.trash import RuleRow, TrashRows

DEFAULT_DAYS = 14


def rename_rules(
    rows: TrashRows,
    rules: Mapping[bytes, RuleRow],
    inode: Inode,
    name: bytes,
    new_name: bytes,
    other: Inode | None,
) -> bool:
    """The rule of a directory goes with it to its new name, which is that of `other` if they change names.
    Inside a transaction; has any rule changed?

    What is in the trash already is kept by the rule of the name that it had: one that keeps it for longer
    than that of the store stays there, too.
    """
    days = rules[b""].days or DEFAULT_DAYS
    mine = rules.get(name) if inode.is_directory else None
    its = rules.get(new_name) if other is not None and other.is_directory else None
    for rule in (mine, its):
        if rule is not None and rule.days <= days:
            rows.remove_rule(rule.directory)
    if mine is not None:
        rows.set_rule(mine._replace(directory=new_name))
    if its is not None:
        rows.set_rule(its._replace(directory=name))
    return mine is not None or its is not None
