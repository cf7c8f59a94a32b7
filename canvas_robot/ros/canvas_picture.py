"""CanvasPicture: one decision as a picture: what was seen, how fresh it was, what was decided.

And what is predicted to be seen. No ROS: a binding, a decision and pictures in, RGB out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import cv2
import numpy as np

from canvas_robot.ros.decisions import Decision
from canvas_robot.ros.foresight import Foreseen
from canvas_robot.signals import Binding, VectorSignal

WIDTH, HEIGHT = 960, 480
DECISIONS = 40  # columns of the timeline
OLDEST = 8  # ticks: from this age on a region is drawn at its palest
FORESEEN = 3  # pictures of a region that are drawn, the last one among them

# Colours, RGB.
_BACK, _PANEL, _LINE = (24, 26, 30), (34, 37, 43), (74, 79, 88)
_TEXT, _FAINT = (226, 229, 234), (148, 154, 164)
_FRESH, _ACTIVE, _HELD = (86, 180, 233), (120, 200, 120), (240, 160, 60)
_IMAGINED = (220, 130, 190)  # the frame of what no camera has seen
_CURVES = ((86, 180, 233), (240, 160, 60), (120, 200, 120), (220, 130, 190))

_FONT, _SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.42
_SHIFT = 4  # bits below the pixel that OpenCV draws to
_TITLE_Y = 24
_LEFT, _MIDDLE, _RIGHT = 12, 580, WIDTH - 12  # of both columns
_TOP, _CAMERAS_LOW, _LOW = 42, 318, HEIGHT - 12


@dataclass(frozen=True)
class _Box:
    """A rectangle of pixels."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, eq=False)
class _View:
    """A picture with a line above it. like: the (H, W) that it is drawn in the shape of.

    below: a line below it, and the colour of both and of a frame; None for what a camera saw.
    """

    picture: np.ndarray
    like: tuple[int, int]
    above: str
    below: tuple[str, tuple[int, int, int]] | None = None


@dataclass(frozen=True)
class _Column:
    """One decision of the timeline. ages: ticks by region; none in a hold."""

    ages: Mapping[str, int]
    computed: frozenset[str]
    held: bool


@dataclass(frozen=True)
class _Group:
    """Components of the action that share unit and limits, and so a panel."""

    indices: tuple[int, ...]
    unit: str
    low: float
    high: float


@final
class CanvasPicture:
    """Draws decisions; remembers the last of them for the timeline. For one thread.

    binding: names regions and the components of the action, with their limits.
    """

    def __init__(self, binding: Binding) -> None:
        self._action = binding.action_signal()
        self._action_region = binding.action_region()
        self._groups = _groups(self._action)
        self._columns: deque[_Column] = deque(maxlen=DECISIONS)
        self._regions = [*binding.observed_regions(), self._action_region]
        self._stamps_ns: dict[str, int] = {}

    def draw(
        self,
        decision: Decision,
        pictures: Mapping[str, np.ndarray],
        foreseen: Sequence[Foreseen] = (),
    ) -> np.ndarray:
        """(480, 960, 3) uint8 RGB of a decision.

        pictures: the newest (H, W, 3) uint8 RGB by visual region. foreseen: what is predicted of
            them, by regions and in the order of time.
        """
        self._columns.append(self._column(decision))
        image = np.full((HEIGHT, WIDTH, 3), _BACK, np.uint8)
        _title(image, decision)
        _views(image, list(_viewed(decision, pictures, foreseen)))
        self._timeline(image)
        self._chunk(image, decision)
        return image

    def _column(self, decision: Decision) -> _Column:
        if decision.chunk is None:
            return _Column({}, frozenset(), held=True)
        ages = {**decision.chunk.ages, self._action_region: 0}
        moved = {r for r, ns in decision.stamps_ns.items() if self._stamps_ns.get(r) != ns}
        fresh = {region for region, age in ages.items() if age == 0}
        self._stamps_ns = dict(decision.stamps_ns)
        return _Column(ages, frozenset(fresh | moved), held=False)

    def _timeline(self, image: np.ndarray) -> None:
        """A row for each region that has been computed, a column for each decision."""
        seen = {region for column in self._columns for region in column.ages}
        regions = [region for region in self._regions if region in seen]
        box = _Box(_LEFT, _CAMERAS_LOW + 22, _MIDDLE - 24 - _LEFT, _LOW - _CAMERAS_LOW - 22)
        told = f"last {DECISIONS} decisions    bright: computed, dim: older, orange: held"
        _text(image, told, (box.x, box.y - 8), _FAINT, box.width)
        labels = 96
        step = (box.width - labels) // DECISIONS
        row = min(26, box.height // max(len(regions), 1))
        first = box.x + labels + (DECISIONS - len(self._columns)) * step
        for i, region in enumerate(regions):
            y = box.y + i * row
            _text(image, region, (box.x, y + row // 2 + 4), _TEXT, labels - 8)
            left, right = box.x + labels, box.x + labels + DECISIONS * step
            _fill(image, _Box(left, y + 2, right - left - 2, row - 4), _PANEL)
            for j, column in enumerate(self._columns):
                cell = _Box(first + j * step, y + 2, step - 2, row - 4)
                if column.held:
                    _fill(image, cell, _faded(_HELD, 0.55))
                elif region in column.computed:
                    _fill(image, cell, _FRESH)
                elif region in column.ages:
                    share = min(column.ages[region], OLDEST) / OLDEST
                    _fill(image, cell, _faded(_FRESH, 0.42 - 0.30 * share))

    def _chunk(self, image: np.ndarray, decision: Decision) -> None:
        """The action's components over the steps ahead, a panel for each group of them."""
        gap, count = 26, len(self._groups)
        height = (_LOW - _TOP - gap * count) // count
        for i, group in enumerate(self._groups):
            y = _TOP + gap - 6 + i * (height + gap)
            box = _Box(_MIDDLE + 58, y, _RIGHT - _MIDDLE - 58, height)
            _fill(image, box, _PANEL)
            self._legend(image, group, box)
            values = None if decision.chunk is None else decision.chunk.values
            _curves(image, group, box, values)
        if decision.chunk is not None:
            steps = decision.chunk.horizon
            label = f"{steps} step" if steps == 1 else f"{steps} steps ahead"
            width = _width(label)
            _text(image, label, (_RIGHT - width, _TOP + gap - 14), _FAINT)

    def _legend(self, image: np.ndarray, group: _Group, box: _Box) -> None:
        x = box.x
        for k, index in enumerate(group.indices):
            name = self._action.names[index]
            _text(image, name, (x, box.y - 8), _CURVES[k % len(_CURVES)])
            x += _width(name) + 12
        unit = "" if group.unit == "1" else group.unit
        _text(image, unit, (x, box.y - 8), _FAINT)


def _groups(action: VectorSignal) -> list[_Group]:
    """Neighbouring components of one unit and the same limits."""
    groups: list[_Group] = []
    for i in range(action.size):
        mine = (action.units[i], action.low[i], action.high[i])
        last = groups[-1] if groups else None
        if last is not None and mine == (last.unit, last.low, last.high):
            groups[-1] = _Group((*last.indices, i), *mine)
        else:
            groups.append(_Group((i,), *mine))
    return groups


def _title(image: np.ndarray, decision: Decision) -> None:
    """Instruction and state; in a hold, why."""
    if decision.reason is None:
        state, colour, left = "active", _ACTIVE, decision.instruction
    else:
        state, colour, left = f"hold: {decision.reason}", _HELD, decision.detail
    width = _width(state, 0.55)
    _text(image, state, (_RIGHT - width, _TITLE_Y), colour, scale=0.55)
    _text(image, left, (_LEFT, _TITLE_Y), _TEXT, _RIGHT - width - 24 - _LEFT, 0.55)


def _viewed(
    decision: Decision, pictures: Mapping[str, np.ndarray], foreseen: Sequence[Foreseen]
) -> Iterator[_View]:
    """Every camera's picture, with the age of what was acted on, and then what is to follow it."""
    for region, picture in pictures.items():
        label = region
        if region in decision.stamps_ns:
            age_ms = (decision.stamp_ns - decision.stamps_ns[region]) / 1e6
            label = f"{region}   {age_ms:.0f} ms old when acted on"
        yield _View(picture, picture.shape[:2], label)
        mine = [each for each in foreseen if each.camera == region]
        yield from _imagined(decision, mine, picture.shape[:2])
    yield from _imagined(decision, [each for each in foreseen if each.camera not in pictures])


def _imagined(
    decision: Decision, foreseen: Sequence[Foreseen], like: tuple[int, int] | None = None
) -> Iterator[_View]:
    """A few of the pictures of each region, in the shape of their camera's."""
    for region in dict.fromkeys(each.region for each in foreseen):
        mine = [each for each in foreseen if each.region == region]
        steps = np.linspace(0, len(mine) - 1, min(len(mine), FORESEEN)).round().astype(int)
        for each in (mine[step] for step in steps):
            ahead_s = (each.at_ns - each.made_ns) / 1e9
            below = f"predicted {(decision.stamp_ns - each.made_ns) / 1e9:.1f} s ago"
            below = (below, _IMAGINED) if each.learned else (f"UNTRAINED, {below}", _HELD)
            label = f"{region}   {ahead_s:+.1f} s"
            yield _View(each.picture, like or each.picture.shape[:2], label, below)


def _views(image: np.ndarray, views: Sequence[_View]) -> None:
    """Side by side."""
    area = _Box(_LEFT, _TOP + 20, _MIDDLE - 24 - _LEFT, _CAMERAS_LOW - 20 - _TOP - 20)
    gap = 12
    width = (area.width - gap * (len(views) - 1)) // max(len(views), 1)
    for i, view in enumerate(views):
        x = area.x + i * (width + gap)
        scale = min(width / view.like[1], area.height / view.like[0])
        w, h = (max(1, int(side * scale)) for side in (view.like[1], view.like[0]))
        method = cv2.INTER_AREA if w < view.picture.shape[1] else cv2.INTER_LINEAR
        drawn = cv2.resize(view.picture, (w, h), interpolation=method)
        image[area.y : area.y + h, x : x + w] = drawn
        _text(image, view.above, (x, area.y - 8), _TEXT, width)
        if view.below is not None:
            text, colour = view.below
            cv2.rectangle(image, (x, area.y), (x + w - 1, area.y + h - 1), colour, 1)
            _text(image, text, (x, area.y + h + 14), colour, width)


def _curves(image: np.ndarray, group: _Group, box: _Box, values: np.ndarray | None) -> None:
    """Limits as lines with their values, and a curve for each component; none in a hold."""
    margin = max(3, box.height // 10)
    span = group.high - group.low

    def y_of(value: np.ndarray | float) -> np.ndarray:
        share = (np.asarray(value) - group.low) / span
        y = box.y + box.height - margin - share * (box.height - 2 * margin)
        return np.clip(y, box.y, box.y + box.height)

    levels = (group.low, group.high) if group.low >= 0 else (group.low, 0.0, group.high)
    for level in levels:
        y = int(y_of(level))
        cv2.line(image, (box.x, y), (box.x + box.width, y), _LINE, 1)
        label = f"{level:g}"
        _text(image, label, (box.x - 8 - _width(label), y + 4), _FAINT)
    if values is None:
        return
    inner = box.width - 24
    x = box.x + 12 + np.arange(len(values)) * (inner / max(len(values) - 1, 1))
    for k, index in enumerate(group.indices):
        points = np.stack([x, y_of(values[:, index])], axis=1)
        fixed = np.round(points * (1 << _SHIFT)).astype(np.int32)
        colour = _CURVES[k % len(_CURVES)]
        cv2.polylines(image, [fixed[:, None]], False, colour, 1, cv2.LINE_AA, _SHIFT)
        for px, py in fixed:
            centre = (int(px), int(py))
            cv2.circle(image, centre, 2 << _SHIFT, colour, -1, cv2.LINE_AA, _SHIFT)


def _fill(image: np.ndarray, box: _Box, colour: tuple[int, int, int]) -> None:
    image[box.y : box.y + box.height, box.x : box.x + box.width] = colour


def _faded(colour: tuple[int, int, int], share: float) -> tuple[int, int, int]:
    """A share of a colour on the panels' grey."""
    return tuple(round(p + share * (c - p)) for c, p in zip(colour, _PANEL, strict=True))


def _width(text: str, scale: float = _SCALE) -> int:
    return cv2.getTextSize(text, _FONT, scale, 1)[0][0]


def _text(
    image: np.ndarray,
    text: str,
    at: tuple[int, int],
    colour: tuple[int, int, int],
    width: int | None = None,
    scale: float = _SCALE,
) -> None:
    """Writes from a baseline on; what is wider than `width` ends in dots."""
    text = text.encode("ascii", "replace").decode()  # OpenCV's fonts have no other letters
    if width is not None and _width(text, scale) > width:
        while text and _width(f"{text}...", scale) > width:
            text = text[:-1]
        text = f"{text}..."
    cv2.putText(image, text, at, _FONT, scale, colour, 1, cv2.LINE_AA)
