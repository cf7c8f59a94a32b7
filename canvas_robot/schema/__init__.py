"""Declarations of a canvas: regions, layout, topology, schema, plan. Standard library only."""

from canvas_robot.schema.attention_types import (
    ATTENTION_TYPES,
    AttentionType,
    UnknownAttentionTypeError,
)
from canvas_robot.schema.layout import CanvasLayout, LayoutError, UnknownRegionError
from canvas_robot.schema.plan import (
    OverlapError,
    Plan,
    PlanError,
    RegionRows,
    RowGroup,
    compile_plan,
)
from canvas_robot.schema.region import RegionError, RegionSpec
from canvas_robot.schema.schema import CanvasSchema, SchemaError
from canvas_robot.schema.topology import CanvasTopology, Connection, TopologyError

__all__ = [
    "ATTENTION_TYPES",
    "AttentionType",
    "CanvasLayout",
    "CanvasSchema",
    "CanvasTopology",
    "Connection",
    "LayoutError",
    "OverlapError",
    "Plan",
    "PlanError",
    "RegionError",
    "RegionRows",
    "RegionSpec",
    "RowGroup",
    "SchemaError",
    "TopologyError",
    "UnknownAttentionTypeError",
    "UnknownRegionError",
    "compile_plan",
]
