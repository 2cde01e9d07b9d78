"""Completion scripts: as the shell itself uses them where it is here, else by what they name."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from casfs.cli.completion import SHELLS
from casfs.cli.help import TOPICS
from casfs.cli.main import COMMANDS


def complete_in_bash(script: str, *words: str, cwd: str = "/") -> list[str]:
    """What bash offers for the last of the words."""
    quoted = " ".join(f"'{word}'" for word in words)
    driver = f"""{script}
    COMP_WORDS=({quoted}) COMP_CWORD={len(words) - 1} COMPREPLY=()
    function=$(complete -p casfs | sed 's/.*-F \\([^ ]*\\).*/\\1/')
    "$function" casfs "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD - 1]}}"
    printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash"], input=driver, text=True, capture_output=True, cwd=cwd, check=True)
    return done.stdout.split()


@pytest.fixture
def bash(casfs):
    script = casfs("completion", "bash").out
    return lambda *words, **options: complete_in_bash(script, *words, **options)


def test_bash_completes_commands(bash):
    assert bash("casfs", "fs") == ["fsck"]
    assert set(COMMANDS) <= set(bash("casfs", ""))


def test_bash_completes_options_of_a_command(bash):
    assert bash("casfs", "fsck", "--d") == ["--debug", "--deep"]


def test_bash_completes_actions_and_their_options(bash):
    assert bash("casfs", "gc", "h") == ["history"]
    assert bash("casfs", "gc", "run", "--gr") == ["--grace"]


def test_bash_completes_topics_of_the_manual(bash):
    assert bash("casfs", "help", "pos") == ["posix"]
    assert set(TOPICS) <= set(bash("casfs", "help", ""))


def test_bash_completes_a_store_with_directories_only(bash, tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "strange").write_text("")
    assert [name.rstrip("/") for name in bash("casfs", "fsck", "st", cwd=str(tmp_path))] == ["store"]


def test_bash_completes_what_is_copied_with_files(bash, tmp_path):
    (tmp_path / "file").write_text("")
    assert bash("casfs", "cp", "fi", cwd=str(tmp_path)) == ["file"]


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_gets_a_script_with_every_command(casfs, shell):
    code, out, err = casfs("completion", shell)
    assert (code, err) == (0, "")
    assert [name for name in COMMANDS if name not in out] == []
    if shutil.which(shell):
        checked = subprocess.run([shell, "-n"], input=out, text=True, capture_output=True)
        assert (checked.returncode, checked.stderr) == (0, "")
