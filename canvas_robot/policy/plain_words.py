"""instruction_code: an instruction's words as one vector, without a vocabulary. Nothing is learned.

Each word, and each two and three in a row, stands for a fixed vector of signs drawn from its
digest; two of them are all but orthogonal (random indexing, Sahlgren 2005). So any text has a code,
and instructions that differ in a word, or in the order of words, differ in theirs.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache

import numpy as np

CODE_SIZE = 64


@lru_cache(maxsize=4096)
def instruction_code(text: str) -> np.ndarray:
    """(CODE_SIZE,) float32, read-only: each number about 1 in size; 0 for a text without words.

    Case, punctuation and spaces do not count; the order of words does.
    """
    words = re.findall(r"\w+", text.casefold())
    parts = [
        " ".join(words[at : at + count])
        for count in (1, 2, 3)
        for at in range(len(words) - count + 1)
    ]
    total = sum((_signs(part) for part in parts), np.zeros(CODE_SIZE, np.float32))
    code = total / np.float32(max(1, len(parts)) ** 0.5)
    code.flags.writeable = False
    return code


def _signs(part: str) -> np.ndarray:
    """(CODE_SIZE,) float32 of -1 and 1."""
    digest = hashlib.blake2b(part.encode(), digest_size=CODE_SIZE // 8).digest()
    return np.unpackbits(np.frombuffer(digest, np.uint8)).astype(np.float32) * 2 - 1
