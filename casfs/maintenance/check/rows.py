"""fsck of the rows: what `namespace.checks` finds, told as problems."""

from __future__ import annotations

from casfs.maintenance.check.problems import PATHS, Findings, Kind
from casfs.namespace.checks import Affected, Checks
from casfs.namespace.dentries import Dentry
from casfs.namespace.locked import LockedRows

_CONTENT = {
    "mode": (Kind.BAD_MODE, "is of no type a file can have"),
    "stray": (Kind.STRAY_CONTENT, "is no regular file and has content"),
    "target": (Kind.LOST_TARGET, "is a symbolic link without a target"),
    "staged": (Kind.BAD_STAGED_NAME, "names a staged file that cannot be one"),
    "row": (Kind.LOST_CONTENT, "refers to a blob that is not in the database"),
    "nothing": (Kind.LOST_CONTENT, "has a size and no content"),
}


def check_locks(locked: LockedRows, findings: Findings) -> None:
    for ino in locked.strays():
        findings.add(Kind.STRAY_LOCK, f"inode {ino} is locked, and is missing")


def check_rows(checks: Checks, findings: Findings) -> None:
    """Everything that can be seen in the rows alone. Inside a snapshot. Raises DatabaseError."""
    _check_counters(checks, findings)
    _check_names(checks, findings)
    _check_tree(checks, findings)
    _check_inodes(checks, findings)
    _check_blobs(checks, findings)


def _check_counters(checks: Checks, findings: Findings) -> None:
    for key, value, least in checks.counters():
        findings.add(Kind.COUNTER, f"{key} is {value}, the numbers in use ask for {least}")
    for kind, number in checks.huge_numbers():
        findings.add(Kind.HUGE_NUMBER, f"{kind} {number} has a number that nothing may have")
    for table, highest in checks.sequences():
        findings.add(Kind.COUNTER, f"no numbers are left for rows of {table}, which has them up to {highest}")
    for ino in checks.bad_values():
        detail = f"inode {ino} has a mode, owner, size or count of links that none can have"
        findings.add(Kind.BAD_VALUE, detail, checks.paths_of_inode, ino, PATHS)
    if not checks.has_uuid():
        findings.add(Kind.COUNTER, "the store has no uuid")


def _check_names(checks: Checks, findings: Findings) -> None:
    for name in checks.bad_names():
        findings.add(Kind.BAD_NAME, f"no file can have the name {name.name!r}", _path, checks, name)
    for name in checks.bad_cookies():
        detail = f"the cookie {name.cookie} of a name is reserved, or another name has it"
        findings.add(Kind.BAD_COOKIE, detail, _path, checks, name)
    for name, mode_type in checks.name_faults():
        if mode_type is None:
            kind, detail = Kind.DANGLING_NAME, f"a name stands for inode {name.ino}, which is missing"
        else:
            what = f"a name says that inode {name.ino} is of type {name.type}"
            kind, detail = Kind.WRONG_TYPE, f"{what}, it is of type {mode_type}"
        findings.add(kind, detail, _path, checks, name)


def _check_tree(checks: Checks, findings: Findings) -> None:
    checks.read_tree()
    paths = checks.paths_of_inode
    if not checks.has_root():
        findings.add(Kind.ROOT, "the root directory is missing")
    for ino, exists in checks.lost_parents():
        what = "no directory" if exists else "missing"
        findings.add(
            Kind.LOST_ENTRIES, f"there are entries in inode {ino}, which is {what}", paths, ino, PATHS
        )
    for ino in checks.many_names():
        findings.add(Kind.MANY_NAMES, f"directory {ino} has more names than it may", paths, ino, PATHS)
    for loop in checks.loops():
        what = f"{len(loop)} directories" if len(loop) > 1 else "a directory"
        detail = f"{what} below {'itself' if len(loop) == 1 else 'each other'} and not below the root"
        findings.add(Kind.LOOP, detail, _paths_of_loop, checks, loop)
    for ino in checks.nameless():
        findings.add(Kind.NAMELESS, f"inode {ino} has no name", paths, ino, PATHS)


def _check_inodes(checks: Checks, findings: Findings) -> None:
    paths = checks.paths_of_inode
    for ino, nlink, counted in checks.link_faults():
        detail = f"inode {ino} has nlink {nlink}, should have {counted}"
        findings.add(Kind.WRONG_LINKS, detail, paths, ino, PATHS)
    for ino, fault, size, expected in checks.content_faults():
        if fault == "size":
            kind, what = Kind.WRONG_SIZE, f"has size {size}, its content has {expected}"
        else:
            kind, what = _CONTENT[fault]
        findings.add(kind, f"inode {ino} {what}", paths, ino, PATHS)
    for ino in checks.stray_trash():
        findings.add(Kind.STRAY_TRASH, f"a row of the trash is for inode {ino}, which does not lie there")
    for ino in checks.untold_trash():
        detail = f"inode {ino} lies in the trash, and nothing says since when"
        findings.add(Kind.UNTOLD_TRASH, detail, paths, ino, PATHS)


def _check_blobs(checks: Checks, findings: Findings) -> None:
    paths = checks.paths_of_blob
    for blob in checks.blob_faults():
        what = f"blob {blob.digest.hex()}"
        if blob.refs != blob.counted:
            kind, detail = Kind.WRONG_REFS, f"{what} has refs {blob.refs}, {blob.counted} inodes refer to it"
        else:
            kind, detail = Kind.WRONG_ORPHANED, f"{what} has refs {blob.refs}, orphaned_ns {blob.orphaned_ns}"
        findings.add(kind, detail, paths, blob.id, PATHS)
    for blob_id in checks.bad_digests():
        findings.add(Kind.BAD_DIGEST, f"the digest of blob {blob_id} is none", paths, blob_id, PATHS)
    for blob_id in checks.stray_damage():
        findings.add(Kind.STRAY_DAMAGE, f"blob {blob_id} is noted as damaged, and is not in the database")
    for blob_id, pin_id, is_pin in checks.stray_pins():
        gone = f"blob {blob_id}" if is_pin else "the pin"
        findings.add(Kind.STRAY_PIN, f"pin {pin_id} holds blob {blob_id}, and {gone} is not in the database")


def _path(checks: Checks, name: Dentry) -> Affected:
    return Affected((checks.path(name.parent, name.name),), 1)


def _paths_of_loop(checks: Checks, loop: list[int]) -> Affected:
    paths = [path for ino in loop[:PATHS] for path in checks.paths_of_inode(ino, 1).paths]
    return Affected(tuple(paths), len(loop))
