"""Standard output and error on any terminal: no character that the locale lacks may end a command."""

import codecs
import io
import sys
import unicodedata

_PLAIN = {
    "×": "x",
    "°": " deg",
    "→": "->",
    "←": "<-",
    "·": "*",
    "•": "*",
    "–": "-",
    "—": "-",
    "−": "-",
    "≥": ">=",
    "≤": "<=",
    "µ": "u",
    "μ": "u",
    "σ": "sigma",
}
"""ASCII for what the messages hold; Unicode's decompositions know letters with marks, exponents and dots."""

_HANDLER = "n2n_deploy.plain"


def plain(text: str) -> str:
    """The nearest ASCII of a text: "4.5 Å" is "4.5 A"; "?" stands for what has none, such as a byte of no character."""
    return "".join(_plain(character) for character in text)


def tolerate_any_character() -> None:
    """Let the standard streams write `plain` text where their encoding lacks a character, instead of raising."""
    codecs.register_error(_HANDLER, _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def _plain(character: str) -> str:
    if character.isascii():
        return character
    found = _PLAIN.get(character) or unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return found or "?"


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return plain(error.object[error.start : error.end]), error.end
