"""Declarations of a canvas: regions, layout, topology, schema, plan. Standard library only."""

from canvas_robot.schema.attention_types import (
    ATTENTION_TYPES,
    AttentionType,
    UnknownAttentionTypeError,
)
from canvas_robot.schema.edge_options import EdgeOptions, EdgeOptionsError
from canvas_robot.schema.layout import CanvasLayout, LayoutError, UnknownRegionError
from canvas_robot.schema.plan import (
    EdgeBlock,
    OverlapError,
    Plan,
    PlanError,
    RegionRows,
    ResidualEdge,
    RowGroup,
    compile_plan,
)
from canvas_robot.schema.plan_form import plan_from_dict, plan_to_dict
from canvas_robot.schema.region import RegionError, RegionSpec
from canvas_robot.schema.schedule import (
    LoopPass,
    Modulation,
    Pass,
    closure,
    dirty_regions,
    distinct_passes,
    needed_for,
    pass_over,
)
from canvas_robot.schema.schema import CanvasSchema, SchemaError
from canvas_robot.schema.topology import CanvasTopology, Connection, TopologyError
from canvas_robot.schema.transfer import TransferError, transfer_distance

__all__ = [
    "ATTENTION_TYPES",
    "AttentionType",
    "CanvasLayout",
    "CanvasSchema",
    "CanvasTopology",
    "Connection",
    "EdgeBlock",
    "EdgeOptions",
    "EdgeOptionsError",
    "LayoutError",
    "LoopPass",
    "Modulation",
    "OverlapError",
    "Pass",
    "Plan",
    "PlanError",
    "RegionError",
    "RegionRows",
    "RegionSpec",
    "ResidualEdge",
    "RowGroup",
    "SchemaError",
    "TopologyError",
    "TransferError",
    "UnknownAttentionTypeError",
    "UnknownRegionError",
    "closure",
    "compile_plan",
    "dirty_regions",
    "distinct_passes",
    "needed_for",
    "pass_over",
    "plan_from_dict",
    "plan_to_dict",
    "transfer_distance",
]
