"""advise: likely mistakes of a schema that is valid; what is wrong raises elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from canvas_robot.schema.description import (
    OBSERVES,
    RECOMPUTED,
    UNCHANGED,
    timeline,
)
from canvas_robot.schema.plain import shown
from canvas_robot.schema.plan import Plan
from canvas_robot.schema.schedule import needed_for
from canvas_robot.schema.schema import CanvasSchema

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0")  # of forms that are read, or upgraded


@dataclass(frozen=True)
class Advice:
    """A likely mistake; `level` is "warning", or "note" for what may well be meant."""

    level: str
    text: str

    def __str__(self) -> str:
        return f"{self.level}: {self.text}"


def advise(schema: CanvasSchema, plan: Plan) -> tuple[Advice, ...]:
    """Likely mistakes, warnings first, each with the reason and the remedy."""
    found = [*_reading(schema, plan), *wasted_periods(schema, plan), *_outputs(schema)]
    found += _connections_without_steps(schema)
    found += _unusable_words(schema)
    unnamed = [
        name for name in schema.layout.regions if not schema.layout.region_spec(name).semantic_type
    ]
    if unnamed:
        found.append(
            Advice(
                "warning",
                f"no semantic_type: {', '.join(unnamed)}; say in words what they hold, for people "
                "and for transfer distances",
            )
        )
    free = schema.layout.num_positions - plan.n_rows
    if not schema.layout.regions:
        found.append(Advice("warning", "no regions: nothing is observed, computed or commanded"))
    elif free:
        share = free / schema.layout.num_positions
        found.append(
            Advice(
                "note",
                f"{free} of {schema.layout.num_positions} cells ({share:.0%}) belong to no region; "
                "they are neither computed nor read",
            )
        )
    return tuple(sorted(found, key=lambda advice: advice.level, reverse=True))


def _reading(schema: CanvasSchema, plan: Plan) -> list[Advice]:
    found = []
    for name in schema.layout.regions:
        read = any(name in other.reads for other in plan.regions if other.name != name)
        reads = set(plan.region(name).reads) - {name}
        output = schema.layout.region_spec(name).is_output
        if not output and not read:
            found.append(
                Advice(
                    "warning",
                    f"region {name!r}: no other region reads it and it is no output, so it changes "
                    "nothing; connect a reader to it or leave it out",
                )
            )
        if output and not reads:
            found.append(
                Advice(
                    "warning",
                    f"region {name!r}: an output that reads no other region knows nothing of the "
                    "observations; connect it to them, or set is_output to false",
                )
            )
    return found


def wasted_periods(schema: CanvasSchema, plan: Plan) -> list[Advice]:
    """A region that reads one refreshed in between is computed again: its period saves less.

    Period(reader) must divide period(read), so that the reader is due whenever what it reads is.
    Outputs that begin later and that nothing reads are no tick's work: their period says only how
    far apart their canvas steps are.
    """
    line = timeline(schema, plan)
    found = []
    for name, states in line.states.items():
        due = [tick for tick, state in enumerate(states) if state == RECOMPUTED]
        if not due or _only_predicted(schema, plan, name):
            continue
        read, reached = set(plan.region(name).reads), needed_for(plan, [name])
        causes = {n for n in reached if any(line.states[n][tick] == OBSERVES for tick in due)}
        through = "reads" if causes & read else "reads through others"
        named = ", ".join(
            f"{cause!r} (period {schema.layout.region_spec(cause).period})"
            for cause in sorted(causes & read or causes)
        )
        saved = states.count(UNCHANGED)
        saves = f"saves {saved} of {line.ticks} ticks only" if saved else "saves nothing"
        period = schema.layout.region_spec(name).period
        found.append(
            Advice(
                "warning",
                f"region {name!r}: period {period} {saves}, for it {through} {named}, which "
                f"changes in between; give that a multiple of {period} or let it not be read",
            )
        )
    return found


def _unusable_words(schema: CanvasSchema) -> list[Advice]:
    """A version of another form, and embeddings that nothing can be compared with."""
    found = []
    if schema.version not in VERSIONS:
        found.append(
            Advice(
                "warning",
                f"schema_version {shown(schema.version)}: known are {', '.join(VERSIONS)}; what "
                "this file means by its fields may be something else",
            )
        )
    for name in schema.layout.regions:
        embedding = schema.layout.region_spec(name).semantic_embedding
        if embedding is not None and not any(embedding):
            found.append(
                Advice(
                    "warning",
                    f"region {name!r}: semantic_embedding has no direction, for "
                    f"{'all its numbers are 0' if embedding else 'it is empty'}; embed it again, "
                    "or leave it out",
                )
            )
    return found


def _only_predicted(schema: CanvasSchema, plan: Plan, name: str) -> bool:
    spec = schema.layout.region_spec(name)
    read = any(name in region.reads for region in plan.regions if region.name != name)
    return spec.is_output and spec.bounds[0] > schema.layout.t_current and not read


def _connections_without_steps(schema: CanvasSchema) -> list[Advice]:
    """Connections whose offsets pair no canvas step of src with one of dst."""
    found, layout = [], schema.layout
    for c in schema.topology.connections if schema.topology is not None else ():
        fn = schema.topology.resolve_fn(c, layout)
        if c.weight == 0 or fn == "none" or not c.temporal:
            continue
        t0, t1, *_ = layout.region_spec(c.dst).bounds
        read = (c.readable_steps(t, layout.T) for t in layout.region_timesteps(c.src))
        if not any(max(t0, steps.start) < min(t1, steps.stop) for steps in read):
            found.append(
                Advice(
                    "warning",
                    f"connection {c.src!r} -> {c.dst!r} ({fn}): t_src {c.t_src} and t_dst "
                    f"{c.t_dst} pair no canvas steps of the two within T={layout.T}, so it reads "
                    "nothing; correct the offsets or leave it out",
                )
            )
    return found


def _outputs(schema: CanvasSchema) -> list[Advice]:
    found, now = [], schema.layout.t_current
    for name in schema.layout.regions:
        spec = schema.layout.region_spec(name)
        t0, t1, *_ = spec.bounds
        if spec.is_output and t1 <= now:
            found.append(
                Advice(
                    "warning",
                    f"region {name!r}: an output that ends at canvas step {t1 - 1}, before "
                    f"t_current = {now}: all of it is past; move it, or set is_output to false",
                )
            )
        elif spec.is_output and t0 > now:
            found.append(
                Advice(
                    "note",
                    f"region {name!r}: an output that starts at canvas step {t0}, after t_current "
                    f"= {now}; an action region starts at t_current",
                )
            )
    return found
