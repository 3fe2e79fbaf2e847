"""A row's fields, read strictly: each fault says where, what was expected, what was found and the remedy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safekey_peft.errors import DataError

SHOWN_CHARS = 80


class RowError(DataError):
    """One row that cannot be used; the run goes on without it.

    Attributes:
        reason: short slug under which the row is counted, such as ``offsets_reversed``.
    """

    def __init__(self, message: str, reason: str) -> None:
        """Keep both in ``args``, so that the error survives a process boundary."""
        super().__init__(message, reason)
        self.reason = reason

    def __str__(self) -> str:
        """Return the message alone, in one line."""
        return str(self.args[0])


def row_error(where: str, reason: str, problem: str, remedy: str, row_id: object = None) -> RowError:
    """Compose the one line, ``train.jsonl:17 (id=b3): problem. remedy.``, into an error."""
    name = "" if row_id is None else f" (id={_row_name(row_id)})"
    return RowError(f"{where}{name}: {problem}. {remedy}.", reason)


def _row_name(row_id: object) -> str:
    """Return a plain id as it is and anything odd as a shortened literal."""
    plain = isinstance(row_id, (str, int)) and str(row_id).isprintable() and len(str(row_id)) <= SHOWN_CHARS
    return str(row_id) if plain else shorten(row_id)


def shorten(value: object) -> str:
    """Show a value in one line, at most ``SHOWN_CHARS`` characters of it."""
    if isinstance(value, str):
        shown = repr(value[:SHOWN_CHARS])
        cut = len(value) > SHOWN_CHARS
    elif isinstance(value, Mapping):
        shown, cut = f"an object with {len(value)} keys", False
    elif isinstance(value, (list, tuple)):
        shown, cut = f"a list of {len(value)}", False
    elif isinstance(value, (bool, float, type(None))):
        shown, cut = {None: "null", True: "true", False: "false"}.get(value, repr(value)), False  # type: ignore[arg-type]
    elif isinstance(value, int):
        shown, cut = (
            (str(value), False) if value.bit_length() < 200 else ("a number of over 60 digits", False)
        )
    else:
        shown, cut = type(value).__name__, False
    if len(shown) > SHOWN_CHARS:
        shown, cut = shown[:SHOWN_CHARS], True
    return f"{shown} …" if cut else shown


class RowFields:
    """Typed access to one row.

    Args:
        values: the row.
        where: file and line (or dataset and index).
        row_id: what the row calls itself, for messages.
        names: canonical key → the key that the user wrote, for messages about a converted row.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        where: str,
        row_id: object = None,
        names: Mapping[str, str] | None = None,
    ) -> None:
        """Bind the row to its place."""
        self.values = values
        self.where = where
        self.row_id = row_id
        self._names = names or {}

    def name(self, key: str) -> str:
        """Return the key as the user wrote it."""
        return self._names.get(key, key)

    def error(self, reason: str, problem: str, remedy: str) -> RowError:
        """Build the error of this row."""
        return row_error(self.where, reason, problem, remedy, self.row_id)

    def wrong_type(self, key: str, expected: str, found: object) -> RowError:
        """Build the error for a value of the wrong type."""
        problem = f"{self.name(key)}: expected {expected}, found {shorten(found)}"
        return self.error("wrong_type", problem, f"Write {self.name(key)} as {expected}")

    def text(self, key: str) -> str:
        """Read a text that must be there and must not be blank."""
        value = self.values.get(key)
        if not isinstance(value, str):
            raise self.wrong_type(key, "text", value)
        self.check_text(key, value)
        if not value or value.isspace():
            raise self.error(
                "blank_text", f"{self.name(key)}: expected text, found only white space", self._fill(key)
            )
        return value

    def optional_text(self, key: str) -> str | None:
        """Read a text, or None where the key is absent or null."""
        return None if self.values.get(key) is None else self.text(key)

    def optional_flag(self, key: str) -> bool | None:
        """Read true or false; 0, 1 and "true" are not flags."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, bool):
            raise self.wrong_type(key, "true, false or null", value)
        return value

    def flag(self, key: str) -> bool:
        """Read true or false."""
        value = self.values.get(key)
        if not isinstance(value, bool):
            raise self.wrong_type(key, "true or false", value)
        return value

    def optional_integer(self, key: str) -> int | None:
        """Read an integer; true, 3.0 and "3" are not integers."""
        value = self.values.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise self.wrong_type(key, "an integer or null", value)
        return value

    def check_text(self, key: str, value: str) -> None:
        """Refuse what no tokenizer should see: NUL characters and lone surrogates.

        A NUL has no meaning in a prompt and nearly always shows a file that was written in another encoding
        or cut off by a crash; a lone surrogate cannot be encoded at all. Neither is repaired silently.
        """
        if "\x00" in value:
            problem = f"{self.name(key)}: expected text, found a NUL character at {value.index(chr(0))}"
            raise self.error("nul_character", problem, "Remove it, or write the file again as UTF-8")
        if value.isascii():
            return
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as fault:
            problem = f"{self.name(key)}: expected Unicode text, found half a surrogate pair at {fault.start}"
            remedy = "Write the character whole (both halves), or remove it"
            raise self.error("lone_surrogate", problem, remedy) from None

    def _fill(self, key: str) -> str:
        return f"Fill {self.name(key)} in, or use null where it may be missing"
