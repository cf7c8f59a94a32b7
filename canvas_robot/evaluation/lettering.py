"""Lettering: names in a picture, in the fonts that are installed; what none has is escaped.

Nothing is drawn here.
"""

from __future__ import annotations

import logging
import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile

from matplotlib import rcParams
from matplotlib.font_manager import (
    FontEntry,
    FontProperties,
    findfont,
    fontManager,
    get_font,
    weight_dict,
)
from matplotlib.ft2font import FT2Font

LAST_RESORT = "Last Resort"  # fonts whose every letter is a box that names its script


@dataclass(frozen=True)
class Lettering:
    """How texts are drawn.

    families: for matplotlib's "font.family": its own and, after these, those that have what they
    lack. lacking: letters that no installed font has.
    """

    families: tuple[str, ...]
    lacking: frozenset[str]

    def shown(self, text: str, most: int | None = None) -> str:
        """The text with lacking letters escaped as in a Python string.

        most: letters that there is room for, wide ones count twice; beyond, its middle is left out.
        """
        return "".join(self._parts(text, most))

    def shown_apart(self, texts: Iterable[str], most: int) -> dict[str, str]:
        """Each text as `shown`; of those that would look alike, the part in which they differ."""
        cut = {text: self.shown(text, most) for text in texts}
        alike: dict[str, list[str]] = {}
        for text, label in cut.items():
            alike.setdefault(label, []).append(text)
        for group in alike.values():
            if len(group) > 1:
                same = takewhile(lambda column: len(set(column)) == 1, zip(*group, strict=False))
                before = max(0, len(list(same)) - most // 3)
                cut |= {text: f"…{self._start(text[before:], most - 1)}" for text in group}
        return cut

    def _start(self, text: str, most: int) -> str:
        """As much of its beginning as there is room for."""
        parts, room = self._parts(text, None), most
        if sum(map(width_of, parts)) <= room:
            return "".join(parts)
        kept = []
        for part in parts:
            room -= width_of(part)
            if room < 1:
                break
            kept.append(part)
        return "".join([*kept, "…"])

    def on_lines(self, text: str, most: int, on_a_line: int) -> str:
        """As `shown`, broken in its middle, but in no escape, where it is too long for one line."""
        parts = self._parts(text, most)
        widths = [width_of(part) for part in parts]
        if sum(widths) <= on_a_line:
            return "".join(parts)
        middle = min(range(len(parts)), key=lambda i: abs(sum(widths[:i]) - sum(widths[i:])))
        return f"{''.join(parts[:middle])}\n{''.join(parts[middle:])}"

    def _parts(self, text: str, most: int | None) -> list[str]:
        parts = [
            letter.encode("ascii", "backslashreplace").decode()
            if letter in self.lacking
            else letter
            for letter in text
        ]
        if most is None or sum(map(width_of, parts)) <= most:
            return parts
        start, end, room = [], [], most - 1
        while parts:
            at, side = (0, start) if len(start) <= len(end) else (-1, end)
            room -= width_of(parts[at])
            if room < 0:
                break
            side.append(parts.pop(at))
        return [*start, "…", *reversed(end)]


def lettering(texts: Iterable[str], weight: str = "normal") -> Lettering:
    """The lettering for all these texts; other fonts are looked at only if they need one."""
    families = list(rcParams["font.family"])
    lacking = {letter for text in texts for letter in text}
    for family in families:
        path = findfont(FontProperties(family=[family], weight=weight))
        lacking -= _drawn(path, lacking)
    for family, paths in _others(families).items() if lacking else ():
        found = lacking
        for path in paths:
            found = _drawn(path, found)
        if found:
            families.append(family)
            lacking = lacking - found
        if not lacking:
            break
    return Lettering(tuple(families), frozenset(lacking))


@contextmanager
def quiet_fonts() -> Iterator[None]:
    """Keeps to itself what matplotlib logs and warns of a font that lacks a weight or a letter."""
    log = logging.getLogger("matplotlib.font_manager")
    log.addFilter(_not_of_a_weight)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"Glyph \d+", UserWarning)
            yield
    finally:
        log.removeFilter(_not_of_a_weight)


def _not_of_a_weight(record: logging.LogRecord) -> bool:
    return "Failed to find font weight" not in record.msg


def _others(families: list[str]) -> dict[str, list[str]]:
    """Files of the upright faces of all other families, regular ones without serifs first."""
    found: dict[str, list[FontEntry]] = {}
    for entry in fontManager.ttflist:
        if entry.style == "normal" and not entry.name.startswith(LAST_RESORT):
            found.setdefault(entry.name, []).append(entry)

    def order(family: str) -> tuple:
        weights = [weight_dict.get(entry.weight, entry.weight) for entry in found[family]]
        return min(abs(weight - 400) for weight in weights), "Sans" not in family, family

    return {
        family: [entry.fname for entry in found[family]]
        for family in sorted(found.keys() - set(families), key=order)
    }


def _drawn(path: str, letters: set[str]) -> set[str]:
    """Those of the letters that the font in a file has and that can be drawn from it."""
    try:
        face = get_font(path)
        charmap = face.get_charmap()
        face.set_size(12, 72)
        return {
            letter
            for letter in letters
            if ord(letter) in charmap and (_is_blank(letter) or _has_outline(face, letter))
        }
    except (OSError, RuntimeError):  # a file that is gone, or cannot be read
        return set()


def _is_blank(letter: str) -> bool:
    """Spaces, joiners, selectors of variants: nothing is to be seen of them."""
    return unicodedata.category(letter)[0] not in "LNPS"


def _has_outline(face: FT2Font, letter: str) -> bool:
    """Colour fonts have letters that matplotlib draws as nothing."""
    x0, y0, x1, y1 = face.load_char(ord(letter)).bbox
    return x1 > x0 and y1 > y0


def width_of(text: str) -> int:
    """How many ordinary letters would be as wide; those of Chinese, say, are as wide as two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)
