"""upgrade: a schema file of canvas-engineering 0.1.0 to 0.5.0, or an older one, as one of ours.

What has an equivalent is translated, what changes nothing is dropped, what would change the
meaning is refused by name. Reading and writing files is the caller's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from canvas_robot.schema.layout import MAX_POSITIONS
from canvas_robot.schema.plain import shown
from canvas_robot.schema.region import RegionSpec
from canvas_robot.schema.schema import CanvasSchema, SchemaError
from canvas_robot.schema.topology import Connection

_SCHEMA_FIELDS = {"schema_version", "layout", "regions", "topology", "metadata"}
_LAYOUT_FIELDS = {"T", "H", "W", "d_model", "t_current"}
_REGION_FIELDS = {f.name for f in fields(RegionSpec)}
_CONNECTION_FIELDS = {f.name for f in fields(Connection)}

# Values of the other library's fields that say what ours does anyway.
_REGION_DEFAULTS = {"carrier": ("deterministic",)}
_CONNECTION_DEFAULTS = {
    "write_mode": ("add",),
    "temporal_fill": ("drop",),
    "mask": (None,),
    "trigger": (None,),
}
# Fields that no code of the other library computes with, whatever their value.
_CONNECTION_LABELS = {"operator"}
_SCHEMA_LABELS = {"program_version"}
_SAME_TYPE = {"cogvideox": "cross_attention"}  # "the backbone's own attention"


class UpgradeError(SchemaError):
    """A file holds what this library has no equivalent for."""


@dataclass(frozen=True)
class Upgrade:
    """The upgraded schema and what was done to the file, a line each."""

    schema: CanvasSchema
    translated: tuple[str, ...]
    dropped: tuple[str, ...]


@dataclass
class _Notes:
    translated: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def upgrade(data: object, drop_unknown: bool = False) -> Upgrade:
    """Reads a schema's JSON of another version; the argument is left as it is.

    Args:
        data: the decoded JSON.
        drop_unknown: drop also what changes the meaning, and list it.
    Raises:
        UpgradeError: fields that would change the meaning, all named; a grid that is not one of
            one or two spatial dimensions, which nothing can drop.
        SchemaError, RegionError, LayoutError, ...: what remains is no valid schema.
    """
    if not isinstance(data, Mapping):
        raise UpgradeError(f"expected a JSON object, got {type(data).__name__}")
    notes = _Notes()
    layout, dimensions = _layout(_object(data, "layout"), notes)
    regions = {
        name: _region(name, region, dimensions, notes)
        for name, region in _object(data, "regions").items()
    }
    result = {"layout": layout, "regions": regions}
    _keep(data, result, {"schema_version", "metadata"})
    if "topology" in data:
        if not isinstance(data["topology"], list):
            raise UpgradeError(f"topology: expected a list, got {type(data['topology']).__name__}")
        fills = "spatial_shape" in data["layout"]
        result["topology"] = [
            connection
            for number, c in enumerate(data["topology"])
            if (connection := _connection(number, c, layout, regions, fills, notes)) is not None
        ]
    _sort_out(data, _SCHEMA_FIELDS, {}, _SCHEMA_LABELS, "schema", notes)
    if notes.refused and not drop_unknown:
        raise UpgradeError(
            "no equivalent here, and dropping it would change the meaning: "
            + "; ".join(notes.refused)
            + ". Change the file, or drop it all with --drop-unknown"
        )
    schema = CanvasSchema.from_dict(result)
    return Upgrade(schema, tuple(notes.translated), tuple(notes.dropped + notes.refused))


def _layout(layout: Mapping, notes: _Notes) -> tuple[dict, int]:
    """The grid as T, H, W, and the number of its spatial dimensions in the file."""
    result: dict = {}
    _keep(layout, result, _LAYOUT_FIELDS)
    dimensions = 2
    if "spatial_shape" in layout:
        shape = layout["spatial_shape"]
        if not isinstance(shape, list) or len(shape) not in (1, 2):
            raise UpgradeError(
                f"layout: spatial_shape: expected [H, W] or [W], got {shown(shape)}; "
                "a canvas here has one or two spatial dimensions: fold the others into these"
            )
        dimensions = len(shape)
        h, w = shape if dimensions == 2 else (1, shape[0])
        for name, value in (("H", h), ("W", w)):
            if result.setdefault(name, value) != value:
                raise UpgradeError(
                    f"layout: spatial_shape {shape} and {name} = {result[name]} contradict"
                )
        notes.translated.append(f"layout: spatial_shape {shape} to H = {h}, W = {w}")
    _sort_out(layout, _LAYOUT_FIELDS | {"spatial_shape"}, {}, set(), "layout", notes)
    return result, dimensions


def _region(name: str, region: object, dimensions: int, notes: _Notes) -> dict:
    where = f"region {name!r}"
    if isinstance(region, list):  # bare bounds
        region = {"bounds": region}
    region = _object({where: region}, where)
    result: dict = {}
    _keep(region, result, _REGION_FIELDS)
    bounds = region.get("bounds")
    if dimensions == 1 and isinstance(bounds, list) and len(bounds) == 4:
        result["bounds"] = [*bounds[:2], 0, 1, *bounds[2:]]
        notes.translated.append(f"{where}: bounds {bounds} to {result['bounds']}")
    _translate_type(result, "default_attn", where, notes)
    _sort_out(region, _REGION_FIELDS, _REGION_DEFAULTS, set(), where, notes)
    return result


def _connection(
    number: int, connection: object, layout: dict, regions: dict, fills: bool, notes: _Notes
) -> dict | None:
    """The connection, or None where it names a region that the file lacks: there it is ignored."""
    connection = _object({(name := f"topology[{number}]"): connection}, name)
    src, dst = connection.get("src"), connection.get("dst")
    where = f"connection {shown(src)} -> {shown(dst)}"
    missing = [n for n in (src, dst) if not (isinstance(n, str) and n in regions)]
    if missing and src is not None and dst is not None:
        notes.dropped.append(f"{where}: names {missing}, no region of this file: it was ignored")
        return None
    result: dict = {}
    _keep(connection, result, _CONNECTION_FIELDS)
    _translate_type(result, "fn", where, notes)
    rest = dict(connection)
    fill = rest.pop("temporal_fill", "hold" if fills else "drop")
    order = rest.pop("interpolation_order", 1)
    _sort_out(rest, _CONNECTION_FIELDS, _CONNECTION_DEFAULTS, _CONNECTION_LABELS, where, notes)
    if fill != "drop" and _is_filled(result, fill, layout, regions):
        kind = f"{fill}, order {order}" if fill == "interpolate" else fill
        notes.refused.append(
            f"{where}: temporal_fill ({kind}): there, offsets count control ticks, and a missing "
            "canvas step is filled from others; here they count canvas steps and skip those"
        )
    elif "temporal_fill" in connection or "interpolation_order" in connection:
        notes.dropped.append(f"{where}: temporal_fill {shown(fill)}, which has no step to fill")
    return result


def _is_filled(connection: dict, fill: str, layout: dict, regions: dict) -> bool:
    """Whether canvas-engineering 0.5.0 pairs other canvas steps than ours does.

    It looks for dst at tick (ref + t_dst) * period(src) and fills a tick that dst lacks; ours pairs
    ref + t_src with ref + t_dst and skips what is missing.
    """
    t_src, t_dst = connection.get("t_src"), connection.get("t_dst")
    if not isinstance(t_dst, int):
        return False
    src, dst = (regions[connection[side]] for side in ("src", "dst"))
    theirs, ours = set(), set()
    periods = [region.get("period", 1) for region in (src, dst)]
    if not all(isinstance(period, int) and period > 0 for period in periods):
        return False  # malformed: from_dict says how
    try:
        if not all(
            0 <= t0 < t1 <= layout["T"] <= MAX_POSITIONS for t0, t1 in map(_steps, (src, dst))
        ):
            return False  # malformed: from_dict says how
        for ref in range(layout["T"]):
            if t_src is not None and not _has_step(src, ref + t_src):
                continue
            row = None if t_src is None else ref
            period = 1 if t_src is None else periods[0]
            theirs.add((row, _filled(dst, (ref + t_dst) * period, fill)))
            ours.add((row, ref + t_dst if _has_step(dst, ref + t_dst) else None))
    except (KeyError, TypeError, ValueError):
        return False  # malformed: from_dict says how
    return {pair for pair in theirs if pair[1] is not None} != {
        pair for pair in ours if pair[1] is not None
    }


def _steps(region: dict) -> tuple[int, int]:
    t0, t1 = region["bounds"][:2]
    return t0, t1


def _has_step(region: dict, t: int) -> bool:
    t0, t1 = _steps(region)
    return t0 <= t < t1


def _filled(dst: dict, tick: int, fill: str) -> int | str | None:
    """The canvas step of dst at that tick; where it has none, what fills it from tick 0 on."""
    t0, t1 = _steps(dst)
    ticks = {t * dst.get("period", 1): t for t in range(t0, t1)}
    if tick in ticks:
        return ticks[tick]
    if fill == "hold":
        return max((t for at, t in ticks.items() if 0 <= at < tick), default=None)
    return "a mixture"


def _translate_type(result: dict, name: str, where: str, notes: _Notes) -> None:
    if isinstance(result.get(name), str) and result[name] in _SAME_TYPE:
        same = _SAME_TYPE[result[name]]
        notes.translated.append(f"{where}: {name} {result[name]!r} to {same!r}")
        result[name] = same


def _sort_out(
    source: Mapping, known: set[str], defaults: Mapping, labels: set[str], where: str, notes: _Notes
) -> None:
    """Sorts the fields that ours lacks into those that change nothing and the others."""
    for name in source:
        if name in known:
            continue
        text = f"{where}: {name} {shown(source[name])}"
        if name in labels:
            notes.dropped.append(f"{text}, a label that nothing computes with")
        elif source[name] in defaults.get(name, ()):
            notes.dropped.append(f"{text}, which is what it does here anyway")
        else:
            notes.refused.append(text)


def _keep(source: Mapping, result: dict, names: set[str]) -> None:
    result.update({name: value for name, value in source.items() if name in names})


def _object(data: Mapping, name: str) -> Mapping:
    if not isinstance(data.get(name), Mapping):
        raise UpgradeError(f"{name}: expected an object, got {shown(data.get(name))}")
    return data[name]
