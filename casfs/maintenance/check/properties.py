"""fsck of extended attributes, and of the properties that follow from them.

A row of table property is the only copy of nothing: it is written anew from the attribute.
"""

from __future__ import annotations

from casfs.maintenance.check.problems import PATHS, Findings, Kind
from casfs.namespace.checks import Checks
from casfs.namespace.namespace import Namespace
from casfs.namespace.property_checks import PropertyChecks


def check_properties(namespace: Namespace, checks: Checks, findings: Findings) -> None:
    properties = PropertyChecks(namespace)
    for ino, count in properties.stray_xattrs():
        findings.add(Kind.STRAY_XATTR, f"{count} extended attributes of inode {ino}, which is missing")
    for ino, missing, wrong in properties.faults():
        if missing:
            detail = f"{missing} values of properties of inode {ino} cannot be searched for"
            findings.add(Kind.MISSING_PROPERTY, detail, checks.paths_of_inode, ino, PATHS)
        if wrong:
            detail = f"{wrong} values are searched for as properties of inode {ino}, which has none such"
            findings.add(Kind.WRONG_PROPERTY, detail, checks.paths_of_inode, ino, PATHS)


def mend_properties(namespace: Namespace) -> None:
    """Inside a write transaction, when what has no inode is gone."""
    for ino in [ino for ino, *_ in PropertyChecks(namespace).faults()]:
        namespace.xattrs.write_properties(ino)
