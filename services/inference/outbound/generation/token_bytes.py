"""The bytes that a token stands for, which are not always a text: a character may be spread over several tokens."""

import re
from functools import cache
from typing import Final

from tokenizers import Tokenizer

_BYTE: Final = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SPACE: Final = "\u2581"
"""How SentencePiece writes a space."""


def token_bytes(tokenizer: Tokenizer, token: int) -> bytes:
    """Of byte-level and of SentencePiece vocabularies; nothing for a number that no token has."""
    word = tokenizer.id_to_token(token)
    if word is None:
        return b""
    if (match := _BYTE.fullmatch(word)) is not None:
        return bytes([int(match[1], 16)])
    alphabet = _byte_alphabet()
    if _is_byte_level(tokenizer) and all(character in alphabet for character in word):
        return bytes(alphabet[character] for character in word)
    return word.replace(_SPACE, " ").encode()


def _is_byte_level(tokenizer: Tokenizer) -> bool:
    return "ByteLevel" in str(tokenizer.decoder)


@cache
def _byte_alphabet() -> dict[str, int]:
    """The printable character that byte-level BPE writes for each byte (Radford and others, GPT-2, 2019)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    characters = [chr(byte) for byte in printable] + [chr(256 + number) for number in range(len(others))]
    return dict(zip(characters, [*printable, *others], strict=True))
