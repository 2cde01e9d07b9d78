"""What daemons do for one store, from one TOML file."""

from __future__ import annotations

import contextlib
import os
import re
import textwrap
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from casfs import config
from casfs.config import Backup, Config, Snapshots, load, parse
from casfs.errors import UsageError
from casfs.maintenance.backup.options import BackupOptions
from casfs.maintenance.snapshots.retention import ALL, EVERYTHING, NS, Retention

LEAST = '[backup.x]\ndestination = "/d"\nschedule = "* * * * *"\n'


def refusal(text: str | bytes) -> str:
    with pytest.raises(UsageError) as caught:
        parse(text.encode() if isinstance(text, str) else text)
    line = str(caught.value)
    assert line.isprintable()
    return line


def test_the_example_of_the_module_is_what_it_looks_like() -> None:
    text = "\n".join(line[4:] for line in (config.__doc__ or "").splitlines() if line.startswith("    "))
    found = parse(text.encode())
    assert found.snapshots == Snapshots(
        schedule="0 * * * *",  # type: ignore[arg-type]
        keep_hourly=24,  # type: ignore[arg-type]
        keep_daily=14,  # type: ignore[arg-type]
    )
    nightly = found.backup["nightly"]
    assert nightly.destination == "/mnt/backup/store"
    assert nightly.schedule == "30 2 * * *"
    assert nightly.retention() == Retention(
        keep_daily=30, keep_yearly=ALL, max_age_ns=3650 * 86_400 * 1_000_000_000
    )
    assert nightly.before == ("/usr/local/bin/mount-backup", "--wait")
    assert nightly.on_failure == ("/usr/local/bin/tell-admin",)
    assert nightly.options("nightly", ("a",), 7) == BackupOptions(
        job="nightly", exclude=("*-cache",), exclude_new_known=("a",), rate=50 << 20
    )


def test_what_is_absent_has_its_usual_values() -> None:
    assert parse(b"") == Config()
    assert parse(b"[snapshots]\n[backup]\n") == Config()
    least = parse(LEAST.encode()).backup["x"]
    assert least == Backup(destination="/d", schedule="* * * * *")  # type: ignore[arg-type]
    assert (least.content, least.create, least.exclude_new, least.hook_timeout) == (True, False, False, 600)
    assert least.retention() == Snapshots().retention() == EVERYTHING
    assert least.expires_ns(5) is None


def test_what_is_made_expires_so_long_after() -> None:
    found = parse(b'[snapshots]\nexpires = "2d"').snapshots
    assert found.expires_ns(7) == 7 + 2 * 86_400 * NS


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[snapshot]", "unknown section 'snapshot'; did you mean 'snapshots'?"),
        ("x = 1", "unknown section 'x'; known: backup, snapshots"),
        ("[snapshots]\nkeep_dayly = 1", "[snapshots] unknown key 'keep_dayly'; did you mean 'keep_daily'?"),
        (LEAST + "destnation = 1", "[backup.x] unknown key 'destnation'; did you mean 'destination'?"),
        ('[backup.x]\nschedule = "* * * * *"', "[backup.x] has no 'destination'"),
        ("[[snapshots]]", "[snapshots] has to be a table; write [snapshots], and its keys below it"),
        ("backup = 1", "each backup has a name; write [backup.NAME], and its keys below it"),
        ('[backup]\nschedule = ""', "each backup has a name; write [backup.NAME], and its keys below it"),
        ('[snapshots]\nschedule = "@x"', "[snapshots] schedule: '@x' is no cron expression that ever comes"),
        ("[snapshots]\nkeep_last = -1", '[snapshots] keep_last: a whole number, 0 or more, or "all" is'),
        ("[snapshots]\nkeep_last = true", '[snapshots] keep_last: a whole number, 0 or more, or "all" is'),
        ('[snapshots]\nmax_count = "all"', "[snapshots] max_count: a whole number, 0 or more, is wanted"),
        ("[snapshots]\nkeep_within = 3", "[snapshots] keep_within: 3 has no unit: write it as 30s, 10m"),
        ('[snapshots]\nmax_age = "1y"', "[snapshots] max_age: '1y' is no duration: write it as 30s, 10m"),
        ('[snapshots]\nreason = "a\\nb"', "[snapshots] reason: one line of printable text is wanted"),
        ('[backup.x]\ndestination = "d"', "[backup.x] destination: 'd' is no absolute path"),
        ("[backup.x]\ndestination = 3", "[backup.x] destination: Expected `str`, got `int`"),
        ('[backup.x]\ncontent = "no"', "[backup.x] content: Expected `bool`, got `str`"),
        ('[backup.x]\nrate = "0"', "[backup.x] rate: '0' is no rate: write 500K, 20M or 1.5GiB, per second"),
        ("[backup.x]\ninclude = [3]", "[backup.x] include: Expected `str`, got `int`"),
        ('[backup.x]\ninclude = "a"', "[backup.x] include: Expected `array`, got `str`"),
        ('[backup.x]\nexclude = ["a/b"]', "[backup.x] exclude: 'a/b' matches no name"),
        ('[backup.x]\nbefore = "sh -c x"', "[backup.x] before: 'sh' is no absolute path of a program"),
        ('[backup.x]\nbefore = "/bin/sh \'x"', "[backup.x] before: '/bin/sh 'x' cannot be split into words"),
        ('[backup.x]\nafter = ["/bin/a", "\\u0000"]', "[backup.x] after: a word of a command cannot have a"),
        ('[backup."a/b"]', "[backup.a/b]: that is no name for a backup; up to 60 letters"),
        ("[backup.snapshots]", "[backup.snapshots]: that is no name for a backup"),
        (f"[backup.{'a' * 61}]", f"[backup.{'a' * 61}]: that is no name for a backup"),
        ('[backup.""]', "[backup.]: that is no name for a backup"),
        ("x", "this is no TOML: Expected '=' after a key in a key/value pair"),
        (b"\xff", "it is not UTF-8"),
        ("x = " + "9" * 5000, "this is no TOML: "),
        ("x = " + "[" * 100_000, "values in values without end"),
        ("a" + ".a" * 100_000 + " = 1", "line 1: more than 200 dots"),
        ("#" * (1 << 20) + "#", "longer than 1048576 bytes"),
    ],
)
def test_what_cannot_be_meant_is_one_line(text: str | bytes, line: str) -> None:
    assert refusal(text).startswith(line)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("\"/bin/echo 'a b' $HOME *\"", ("/bin/echo", "a b", "$HOME", "*")),
        ('["/bin/echo", "a b"]', ("/bin/echo", "a b")),
        ('""', ()),
        ("[]", ()),
    ],
)
def test_commands_are_words_and_no_shell_sees_them(written: str, words: tuple[str, ...]) -> None:
    assert parse(f"{LEAST}before = {written}".encode()).backup["x"].before == words


@given(st.binary(max_size=60) | st.text("[]backupsno.x=\"'/1\n ", max_size=60).map(str.encode))
def test_any_text_is_a_configuration_or_one_line(text: bytes) -> None:
    with contextlib.suppress(UsageError):
        assert isinstance(parse(text), Config)


# What the manual says


def manual() -> str:
    return (Path(config.__file__).parent / "help" / "configuration.txt").read_text()


def test_the_example_of_the_manual_is_sound() -> None:
    text = manual()
    example = text[text.index("    [snapshots]") : text.index("\nA key that")]
    found = parse(textwrap.dedent(example).encode())
    assert found.snapshots.keep_monthly == ALL
    assert found.backup["nightly"].before == ("/bin/mountpoint", "-q", "/mnt/backup")


def test_the_manual_has_every_key() -> None:
    words = set(re.findall(r"\w+", manual()))
    for kind in (Snapshots, Backup):
        assert {field.encode_name for field in msgspec.structs.fields(kind)} <= words


# The file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "store.toml"
    path.write_text(LEAST)
    path.chmod(0o600)
    return path


def test_a_file_is_read(file: Path) -> None:
    assert set(load(str(file)).backup) == {"x"}


def test_what_is_wrong_has_the_name_of_the_file(file: Path) -> None:
    file.write_text("[snapshot]")
    with pytest.raises(UsageError) as caught:
        load(str(file))
    assert str(caught.value) == f"{file}: unknown section 'snapshot'; did you mean 'snapshots'?"


def test_a_file_that_is_not_there(file: Path) -> None:
    file.unlink()
    with pytest.raises(FileNotFoundError):
        load(str(file))


def test_who_may_write_it_says_what_is_run(file: Path) -> None:
    file.chmod(0o602)
    with pytest.raises(UsageError, match="may be written by others"):
        load(str(file))
    file.chmod(0o660)
    load(str(file))


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
def test_one_that_belongs_to_somebody_else_is_refused(file: Path) -> None:
    os.chown(file, 4711, 4711)
    with pytest.raises(UsageError, match="may be written by others"):
        load(str(file))


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
def test_one_that_another_group_may_write_was_taken(file: Path) -> None:
    os.chown(file, 0, 4711)
    file.chmod(0o640)
    load(str(file))
    file.chmod(0o660)
    with pytest.raises(UsageError, match="may be written by others"):
        load(str(file))


def test_what_is_no_file_is_neither_waited_for_nor_read(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(UsageError, match="is no regular file"):
        load(str(file))
    with pytest.raises((UsageError, IsADirectoryError)):
        load(str(file.parent))
