"""What to run, by names and paths. Reads declarations only; loads no model and no torch."""

from __future__ import annotations

from dataclasses import dataclass

from canvas_robot.resources import checkpoint_folder, resolve_config
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import Binding, load_binding

DTYPE_NAMES = ("float32", "bfloat16", "float16")  # of the backbone's loading
STAND_INS = ("constant", "raises", "hangs", "dies", "nan")
DEFAULT_SCHEMA, DEFAULT_BINDING, DEFAULT_STATISTICS = (
    "widowx_tiny.json",
    "widowx.yaml",
    "bridge_v2.json",
)

# Of a node. With two busy programs beside it on two cores, 95% of decisions came within 307 ms with
# one thread and within 3,531 ms with two (canvas-robot bench policy): each waits for the other.
DEFAULT_THREADS = 1
DEFAULT_LOOPS = 3
DEFAULT_SEED = 8  # of an untrained policy: one whose aimless drift stays in the camera's view


@dataclass(frozen=True)
class PolicySettings:
    """What to run.

    Empty strings and 0 mean the checkpoint's own, or the default where there is no checkpoint.

    dtype: of the frozen weights, one of DTYPE_NAMES; int8, float8: their linear layers in 8
        bits, as whole numbers or e4m3 floats.
    prompts: folder made by `canvas-robot prompts`; the text encoder is not loaded then.
    refresh: "inline" or "sliced"; fuse: torch.compile the elementwise parts; as of CanvasPolicy.
    stand_in: what a ModelProcess runs in place of a model, one of STAND_INS; stand_in_ms: how long
        each of its decisions takes.
    """

    checkpoint: str = ""
    schema: str = ""
    binding: str = ""
    backbone: str = "tiny"
    device: str = "cpu"
    control_rate_hz: float = 0.0
    seed: int = DEFAULT_SEED
    dtype: str = "float32"
    int8: bool = False
    float8: bool = False
    prompts: str = ""
    refresh: str = "inline"
    fuse: bool = False
    stand_in: str = ""
    stand_in_ms: float = 0.0

    def __post_init__(self) -> None:
        if self.stand_in and self.stand_in not in STAND_INS:
            raise ValueError(
                f"stand_in: expected one of {', '.join(STAND_INS)}, got {self.stand_in!r}"
            )
        if self.dtype not in DTYPE_NAMES:
            raise ValueError(f"dtype: expected one of {sorted(DTYPE_NAMES)}, got {self.dtype!r}")

    def describe(self) -> str:
        """What will be loaded, in one line."""
        if self.stand_in:
            return f"no model: the stand-in {self.stand_in!r} decides"
        if self.checkpoint:
            return f"checkpoint {self.checkpoint}"
        schema, binding = self.schema or DEFAULT_SCHEMA, self.binding or DEFAULT_BINDING
        return f"an untrained policy: schema {schema}, binding {binding}, backbone {self.backbone}"


def declarations(settings: PolicySettings) -> tuple[CanvasSchema | None, Binding | None]:
    """The schema and the binding that the settings name; None where they name none.

    Raises SchemaError, BindingError, FileNotFoundError and the like, naming the file.
    """
    binding = (
        load_binding(resolve_config("bindings", settings.binding)) if settings.binding else None
    )
    schema = (
        CanvasSchema.from_json(resolve_config("schemas", settings.schema))
        if settings.schema
        else None
    )
    return schema, binding


def default_declarations(settings: PolicySettings) -> tuple[CanvasSchema, Binding]:
    """Those that the settings name, or the defaults, at the settings' control rate."""
    schema, binding = declarations(settings)
    binding = binding or load_binding(resolve_config("bindings", DEFAULT_BINDING))
    if settings.control_rate_hz:
        binding = binding.with_control_rate(settings.control_rate_hz)
    return schema or CanvasSchema.from_json(resolve_config("schemas", DEFAULT_SCHEMA)), binding


def binding_of(settings: PolicySettings) -> Binding:
    """The binding that a policy of these settings has, without loading the policy.

    It is the one that they name, the checkpoint's or the default. Raises as `declarations`.
    """
    if settings.checkpoint and not settings.binding:
        binding = load_binding(checkpoint_folder(settings.checkpoint) / "binding.yaml")
        rate_hz = settings.control_rate_hz
        return binding.with_control_rate(rate_hz) if rate_hz else binding
    return default_declarations(settings)[1]


def schema_of(settings: PolicySettings) -> CanvasSchema:
    """The schema that a policy of these settings has, without loading the policy.

    It is the one that they name, the checkpoint's or the default. Raises as `declarations`.
    """
    if settings.checkpoint and not settings.schema:
        return CanvasSchema.from_json(checkpoint_folder(settings.checkpoint) / "schema.json")
    return CanvasSchema.from_json(resolve_config("schemas", settings.schema or DEFAULT_SCHEMA))
