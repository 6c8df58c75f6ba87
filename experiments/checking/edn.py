"""EDN, the notation Jepsen keeps its histories in, as far as a history needs it (github.com/edn-format/edn).

Values are JSON's: keywords, symbols and characters are read as `str`, vectors, lists and sets as `list`, maps as `dict`
(a collection used as a key becomes a `tuple`), and a tagged value (``#jepsen.history.Op{…}``, ``#inst "…"``) as the
value without its tag. `Keyword` asks `write` for a keyword.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_TOKEN = re.compile(
    r"""[\s,]+ | ;[^\n]*
    | (?P<string>"(?:[^"\\]|\\.)*")
    | (?P<open>[\[({]|\#\{)
    | (?P<close>[\])}])
    | (?P<discard>\#_)
    | (?P<tag>\#[A-Za-z][^\s,;"\[\](){}]*)
    | (?P<character>\\(?:[A-Za-z0-9]+|[^\s]))
    | (?P<atom>[^\s,;"\[\](){}\\]+)""",
    re.VERBOSE | re.DOTALL,
)
_INTEGER = re.compile(r"[+-]?\d+N?")
_FLOAT = re.compile(r"[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?M?")
_ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|.)", re.DOTALL)
_ESCAPES = {"t": "\t", "r": "\r", "n": "\n", "b": "\b", "f": "\f", "\\": "\\", '"': '"'}
_CHARACTERS = {"newline": "\n", "return": "\r", "space": " ", "tab": "\t"}
_NAMES = {"nil": None, "true": True, "false": False, "##NaN": float("nan")}
_NAMES |= {"##Inf": float("inf"), "##-Inf": float("-inf")}
_CLOSES = {"(": ")", "[": "]", "{": "}", "#{": "}"}


class Keyword(str):
    """A name that `write` renders as ``:name``."""

    __slots__ = ()


class EdnError(ValueError):
    """Text that is not EDN. ``offset`` is where, in characters; ``unfinished``: the text ends inside a value."""

    def __init__(self, message: str, offset: int, unfinished: bool = False) -> None:
        super().__init__(message)
        self.offset = offset
        self.unfinished = unfinished


class _Open:
    """A collection whose end is yet to come, or a prefix that waits for its value (``bracket`` is ``#_`` or a tag)."""

    __slots__ = ("bracket", "items", "offset")

    def __init__(self, bracket: str, offset: int) -> None:
        self.bracket = bracket
        self.offset = offset
        self.items: list[Any] = []


def read_each(text: str) -> Iterator[tuple[int, Any]]:
    """Every top-level value of ``text`` with the offset it starts at; of a vector or list, every item, as if the
    brackets were not there. Raises `EdnError`.
    """
    stack: list[_Open] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            what = "a string without its end" if text[position] == '"' else "not EDN"
            raise EdnError(what, position, text[position] == '"' or position == len(text) - 1)
        kind, token, start = match.lastgroup, match[0], position
        position = match.end()
        if kind is None:
            continue
        if kind == "open" or kind == "discard" or kind == "tag":
            stack.append(_Open(token, start))
            continue
        if kind == "close":
            if not stack or _CLOSES.get(stack[-1].bracket) != token:
                raise EdnError(f"{token!r} closes nothing", start)
            opened = stack.pop()
            start, value = opened.offset, _collection(opened)
        elif kind == "string":
            value = _string(token, start)
        elif kind == "character":
            value = _CHARACTERS.get(token[1:], token[1:])
        else:
            value = _atom(token, start, position == len(text))
        while stack and stack[-1].bracket[0] == "#" and stack[-1].bracket != "#{":
            prefix = stack.pop()
            if prefix.bracket == "#_":
                break
            start = prefix.offset
        else:
            if len(stack) == 1 and stack[0].bracket in "[(":
                yield start, value
            elif stack:
                stack[-1].items.append(value)
            elif token not in "])":
                yield start, value
    if stack:
        raise EdnError(f"{stack[-1].bracket!r} has no end", stack[-1].offset, unfinished=True)


def _collection(opened: _Open) -> Any:
    if opened.bracket != "{":
        return opened.items
    if len(opened.items) % 2:
        raise EdnError("a map with a key that has no value", opened.offset)
    return {_key(opened.items[at]): opened.items[at + 1] for at in range(0, len(opened.items), 2)}


def _key(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_key, value))
    return tuple((_key(key), _key(item)) for key, item in value.items()) if isinstance(value, dict) else value


def _string(token: str, start: int) -> str:
    def escaped(match: re.Match[str]) -> str:
        name = match[1]
        if len(name) == 5:
            return chr(int(name[1:], 16))
        if name not in _ESCAPES:
            raise EdnError(f"no such escape in a string: \\{name}", start + match.start())
        return _ESCAPES[name]

    if "\\" not in token:
        return token[1:-1]
    # Clojure writes characters beyond the basic plane as two escapes, a surrogate pair.
    return _ESCAPE.sub(escaped, token[1:-1]).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _atom(token: str, start: int, last: bool) -> Any:
    if token[0] == ":":
        if len(token) == 1:
            raise EdnError("a keyword without a name", start, unfinished=last)
        return token[1:]
    if token in _NAMES:
        return _NAMES[token]
    if _INTEGER.fullmatch(token) and len(token) < 1000:
        return int(token.rstrip("N"))
    if _FLOAT.fullmatch(token):
        return float(token.rstrip("M"))
    if token[0].isdigit() or token[0] == "#":
        raise EdnError(f"{token!r} is neither a number nor a name", start, unfinished=last)
    return token


def write(value: Any) -> str:
    """``value`` (JSON's types, tuples, and `Keyword`) as one line of EDN. Raises `TypeError` for other types."""
    match value:
        case None:
            return "nil"
        case bool():
            return "true" if value else "false"
        case Keyword():
            return f":{value}"
        case str():
            escaped = "".join(_WRITTEN.get(character, character) for character in value)
            return f'"{escaped}"'
        case float():
            return f"##{'NaN' if value != value else 'Inf' if value > 0 else '-Inf'}" if _odd(value) else repr(value)
        case int():
            return str(value)
        case list() | tuple():
            return f"[{' '.join(map(write, value))}]"
        case dict():
            return "{" + ", ".join(f"{write(key)} {write(item)}" for key, item in value.items()) + "}"
    raise TypeError(f"EDN has no notation here for {type(value).__name__}")


_WRITTEN = {character: f"\\{name}" for name, character in _ESCAPES.items()}


def _odd(value: float) -> bool:
    return value != value or value in (float("inf"), float("-inf"))
