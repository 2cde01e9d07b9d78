"""Text that others have a say in, as names of files are, made fit to be shown and logged."""

from __future__ import annotations

import logging
import os


def printable(name: str | bytes) -> str:
    """A name as one line that cannot move the cursor: control characters and broken UTF-8 become \\xNN."""
    text = os.fsdecode(name)
    return text if text.isprintable() else "".join(map(_escape, text))


def is_text(name: str) -> bool:
    """Is it UTF-8? Not with a lone surrogate, which stands for another byte (PEP 383)."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _escape(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how os.fsdecode carries a byte that is not UTF-8 (PEP 383)
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


class LineFormatter(logging.Formatter):
    """As the standard one, with messages that stay on their line, whatever names are in them: who could end
    one could write the next."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = printable(record.message)
        return super().formatMessage(record)


def log_to(handler: logging.Handler, form: str) -> None:
    """Let what is logged go there, from INFO on, in this format."""
    handler.setFormatter(LineFormatter(form))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
