"""CanvasSchema: layout, topology and metadata as one value and one JSON file."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path

from canvas_robot.schema.document import SchemaError, read_document, write_document
from canvas_robot.schema.layout import CanvasLayout
from canvas_robot.schema.metadata import check_metadata
from canvas_robot.schema.plain import plain_number, shown
from canvas_robot.schema.region import RegionSpec
from canvas_robot.schema.topology import CanvasTopology, Connection
from canvas_robot.schema.transfer import TransferError, transfer_distance


@dataclass
class CanvasSchema:
    """A complete declaration of a canvas: where regions lie, who reads whom, and free metadata.

    Args:
        layout: the grid and its regions.
        topology: the connections; None means that nobody reads anybody.
        version: version of the JSON form.
        metadata: free, but for "framing", the VAE framing of visual regions ("image"); "attention",
            the fields of EdgeOptions; "control_rate_hz", the ticks per second that the periods are
            meant for; and "sharpening", fields of SharpeningSchedule.

    Raises:
        SchemaError: an argument of another type, a topology that names a region which the layout
            lacks, embeddings of one model that differ in length, or unusable metadata.
        EdgeOptionsError: metadata.attention has unknown or wrong options.
    """

    layout: CanvasLayout
    topology: CanvasTopology | None = None
    version: str = "0.2.0"
    metadata: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check_types()
        check_metadata(self.metadata)
        _require_equal_lengths(self.layout)
        if self.topology is None:
            return
        unknown = sorted(self.topology.regions - set(self.layout.regions))
        if unknown:
            raise SchemaError(
                f"topology: names regions {unknown} that the layout lacks; declared regions: "
                f"{sorted(self.layout.regions)}. Fix the spelling or declare them."
            )

    def _check_types(self) -> None:
        kinds = {
            "layout": (CanvasLayout, "a CanvasLayout"),
            "topology": (CanvasTopology | None, "a CanvasTopology or None"),
            "version": (str, "text"),
            "metadata": (dict, "a dict"),
        }
        for name, (kind, expected) in kinds.items():
            value = getattr(self, name)
            if not isinstance(value, kind):
                where = "schema_version" if name == "version" else name
                raise SchemaError(f"{where}: expected {expected}, got {shown(value)}")

    def compatible_regions(
        self, other: CanvasSchema, threshold: float = 0.3
    ) -> list[tuple[str, str, float]]:
        """Pairs (mine, theirs, distance) of regions with near meanings, nearest first.

        Only pairs that both have a semantic embedding of the same model are compared; `threshold`
        is the largest transfer distance that counts as compatible. Raises a TransferError, naming
        the pair, where embeddings of one model differ in length or have no direction, SchemaError
        for what is no schema or no number.
        """
        if not isinstance(other, CanvasSchema):
            raise SchemaError(f"other: expected a CanvasSchema, got {shown(other)}")
        limit = plain_number(threshold)
        if limit is None or math.isnan(limit):
            raise SchemaError(f"threshold: expected a number, got {shown(threshold)}")
        pairs = []
        for mine, a in _embedded(self.layout):
            for theirs, b in _embedded(other.layout):
                if a.embedding_model != b.embedding_model:
                    continue
                try:
                    distance = transfer_distance(a, b)
                except TransferError as error:
                    raise type(error)(f"regions {mine!r} and {theirs!r}: {error}") from error
                if distance <= limit:
                    pairs.append((mine, theirs, distance))
        return sorted(pairs, key=lambda pair: pair[2])

    def to_dict(self) -> dict:
        """The JSON form; only what differs from its default is written."""
        layout = self.layout
        result = {
            "schema_version": self.version,
            "layout": {
                "T": layout.T,
                "H": layout.H,
                "W": layout.W,
                "d_model": layout.d_model,
                "t_current": layout.t_current,
            },
            "regions": {name: _region_to_dict(region) for name, region in layout.regions.items()},
        }
        if self.topology is not None:
            result["topology"] = [_changed_fields(c) for c in self.topology.connections]
        if self.metadata:
            result["metadata"] = self.metadata
        return result

    @classmethod
    def from_dict(cls, data: dict) -> CanvasSchema:
        """The inverse of `to_dict`; raises SchemaError for missing or unknown fields."""
        _require_keys(
            data, {"layout", "regions"}, {"schema_version", "topology", "metadata"}, "schema"
        )
        _require_keys(data["layout"], {"T", "H", "W", "d_model"}, {"t_current"}, "layout")
        _require_type(data["regions"], dict, "regions")
        regions = {name: _region_from_dict(name, d) for name, d in data["regions"].items()}
        topology = None
        if "topology" in data:
            _require_type(data["topology"], list, "topology")
            topology = CanvasTopology(
                [_connection_from_dict(i, d) for i, d in enumerate(data["topology"])]
            )
        _require_type(data.get("metadata", {}), dict, "metadata")
        return cls(
            layout=CanvasLayout(**data["layout"], regions=regions),
            topology=topology,
            version=data.get("schema_version", "0.2.0"),
            metadata=data.get("metadata", {}),
        )

    def to_json(self, path: str | Path) -> None:
        """Writes the JSON form to a file; raises SchemaError for metadata that JSON cannot hold."""
        write_document(path, self.to_dict())

    @classmethod
    def from_json(cls, path: str | Path) -> CanvasSchema:
        """Reads a schema file; raises SchemaError naming the file when it is not a schema."""
        data = read_document(path)
        if not isinstance(data, dict):
            raise SchemaError(f"{path}: expected a JSON object, got {type(data).__name__}")
        try:
            return cls.from_dict(data)
        except ValueError as error:
            raise type(error)(f"{path}: {error}") from error


def _embedded(layout: CanvasLayout) -> list[tuple[str, RegionSpec]]:
    """Names and declarations of the regions that have a semantic embedding."""
    specs = [(name, layout.region_spec(name)) for name in layout.regions]
    return [(name, spec) for name, spec in specs if spec.semantic_embedding is not None]


def _require_equal_lengths(layout: CanvasLayout) -> None:
    first: dict[str, tuple[str, int]] = {}
    for name, spec in _embedded(layout):
        length = len(spec.semantic_embedding)
        other, expected = first.setdefault(spec.embedding_model, (name, length))
        if length != expected:
            raise SchemaError(
                f"region {name!r}: semantic_embedding: expected {expected} numbers, as region "
                f"{other!r} has from the same model {spec.embedding_model!r}, got {length}; "
                "embed both anew"
            )


def _changed_fields(value: RegionSpec | Connection) -> dict:
    """The fields of a declaration that differ from their defaults, tuples as lists."""
    result = {}
    for f in fields(value):
        item = getattr(value, f.name)
        if item != f.default:
            result[f.name] = list(item) if isinstance(item, tuple) else item
    return result


def _region_to_dict(region) -> dict:
    return _changed_fields(region) if isinstance(region, RegionSpec) else {"bounds": list(region)}


def _region_from_dict(name: str, data: dict) -> RegionSpec | tuple:
    known = {f.name for f in fields(RegionSpec)}
    _require_keys(data, {"bounds"}, known - {"bounds"}, f"region {name!r}")
    try:
        region = RegionSpec(**data)
    except ValueError as error:
        raise type(error)(f"region {name!r}: {error}") from error
    return region.bounds if set(data) == {"bounds"} else region


def _connection_from_dict(index: int, data: dict) -> Connection:
    known, where = {f.name for f in fields(Connection)}, f"topology[{index}]"
    if isinstance(data, dict) and {"src", "dst"} <= set(data):
        where += f" ({shown(data['src'])} -> {shown(data['dst'])})"
    _require_keys(data, {"src", "dst"}, known - {"src", "dst"}, where)
    return Connection(**data)


def _require_type(value: object, expected: type, where: str) -> None:
    if not isinstance(value, expected):
        kind = {dict: "an object", list: "a list"}[expected]
        raise SchemaError(f"{where}: expected {kind}, got {type(value).__name__}")


def _require_keys(data: dict, required: set[str], optional: set[str], where: str) -> None:
    _require_type(data, dict, where)
    missing, unknown = required - set(data), set(data) - required - optional
    if missing or unknown:
        wrong = [f"missing fields {sorted(missing)}"] if missing else []
        wrong += [f"unknown fields {shown(sorted(unknown, key=str))}"] if unknown else []
        raise SchemaError(
            f"{where}: {', '.join(wrong)}; "
            f"expected {sorted(required)} and optionally {sorted(optional)}"
        )
