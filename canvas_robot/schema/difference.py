"""compare: what differs between two schemas, and whether a checkpoint of the first fits the second.

Decided from the declarations alone, by what a checkpoint holds (`canvas_robot.policy.model`): one
modality vector per region in their order, a linear layer per vector region that makes its h x w
tokens, a learned query per token of thought and reward, the heads (that of a diffused action draws
whole chunks), the loops, and the gate and projections of each residual edge.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields

from canvas_robot.schema.description import Source, connections_from, spans_of
from canvas_robot.schema.edge_options import declared_options
from canvas_robot.schema.plan import Plan, PlanError, compile_plan
from canvas_robot.schema.region import RegionSpec
from canvas_robot.schema.schema import CanvasSchema

FITS = "fits"
OTHER_FUNCTION = "loads, but is another function"
DOES_NOT_FIT = "does not fit"
_SHAPING_OPTIONS = {"latents": "perceiver", "state_size": "mamba"}  # size weights of that type
_SEVERITY = (FITS, OTHER_FUNCTION, DOES_NOT_FIT)


@dataclass(frozen=True)
class Change:
    """One difference: where, what, and what it means for a checkpoint of the first schema."""

    where: str
    what: str
    verdict: str
    reason: str


@dataclass(frozen=True)
class Difference:
    """All differences between two schemas; empty where they are equal."""

    changes: tuple[Change, ...]

    @property
    def verdict(self) -> str:
        """The worst verdict of any change; "fits" where nothing changed."""
        return max((c.verdict for c in self.changes), key=_SEVERITY.index, default=FITS)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why, of the changes that decide the verdict, each once."""
        worst = self.verdict
        return tuple(dict.fromkeys(c.reason for c in self.changes if c.verdict == worst))


def compare(
    first: CanvasSchema, second: CanvasSchema, codecs: Mapping[str, str] | None = None
) -> Difference:
    """What differs from the first schema to the second.

    Args:
        codecs: codec of each region by name, as a binding declares them; without it an observed
            region of the video stream is taken for a vector region, whose layer fixes its size.
    """
    renamed = _renamed(first, second)
    changes = [
        Change(
            f"region {old!r}",
            f"renamed to {new!r}",
            FITS,
            "weights are stored by the order of regions, not by name; rename it in the binding too",
        )
        for old, new in renamed.items()
    ]
    first = _with_names(first, renamed)
    codecs = {renamed.get(name, name): codec for name, codec in (codecs or {}).items()}
    changes += _layout_changes(first, second)
    changes += _region_changes(first, second, codecs)
    changes += _connection_changes(first, second)
    changes += _metadata_changes(first, second)
    return Difference(tuple(changes))


def _renamed(first: CanvasSchema, second: CanvasSchema) -> dict[str, str]:
    """Regions that differ in name only: same place in the order, same declaration."""
    old, new = list(first.layout.regions), list(second.layout.regions)
    return {
        a: b
        for a, b in zip(old, new, strict=False)
        if a not in new
        and b not in old
        and len(old) == len(new)
        and first.layout.region_spec(a) == second.layout.region_spec(b)
    }


def _with_names(schema: CanvasSchema, renamed: dict[str, str]) -> CanvasSchema:
    if not renamed:
        return schema
    data = schema.to_dict()
    data["regions"] = {renamed.get(name, name): r for name, r in data["regions"].items()}
    for c in data.get("topology", []):
        c["src"], c["dst"] = renamed.get(c["src"], c["src"]), renamed.get(c["dst"], c["dst"])
    return CanvasSchema.from_dict(data)


def _layout_changes(first: CanvasSchema, second: CanvasSchema) -> list[Change]:
    verdicts = {
        "d_model": (DOES_NOT_FIT, "every weight is d_model wide, and the backbone another one"),
        "t_current": (OTHER_FUNCTION, "t_current says which canvas step is now"),
    }
    grid = (FITS, "the size of the grid alone moves no region and stores no weight")
    return [
        Change("layout", f"{name}: {a} -> {b}", *verdicts.get(name, grid))
        for name in ("T", "H", "W", "d_model", "t_current")
        if (a := getattr(first.layout, name)) != (b := getattr(second.layout, name))
    ]


def _region_changes(
    first: CanvasSchema, second: CanvasSchema, codecs: Mapping[str, str]
) -> list[Change]:
    old, new = list(first.layout.regions), list(second.layout.regions)
    counts = f"one modality vector and codec per region: {len(old)} and {len(new)} regions"
    if len(old) == len(new):
        counts = "a region of another name and declaration has a codec of its own"
    changes = [
        Change(f"region {name!r}", what, DOES_NOT_FIT, counts)
        for names, others, what in ((old, new, "removed"), (new, old, "added"))
        for name in names
        if name not in others
    ]
    common = [name for name in old if name in new]
    if common != [name for name in new if name in old]:
        changes.append(
            Change(
                "regions",
                f"order: {', '.join(old)} -> {', '.join(new)}",
                OTHER_FUNCTION,
                "modality vectors are stored in the order of regions: each would go to another one",
            )
        )
    for name in common:
        a, b = first.layout.region_spec(name), second.layout.region_spec(name)
        for f in fields(RegionSpec):
            before, after = getattr(a, f.name), getattr(b, f.name)
            if before == after:
                continue
            verdict, reason = _region_verdict(f.name, a, b, name, codecs.get(name))
            if f.name == "semantic_embedding":
                before, after = _length(before), _length(after)
            what = f"{f.name}: {_text(before)} -> {_text(after)}"
            changes.append(Change(f"region {name!r}", what, verdict, reason))
    return changes


_REGION_REASONS = {
    "period": (OTHER_FUNCTION, "it sees samples of other times, and keeps them longer or shorter"),
    "stream": (OTHER_FUNCTION, "the other stream has other norms, gates and loop embeddings"),
    "timestep": (OTHER_FUNCTION, "the timestep modulates every block"),
    "hold": (OTHER_FUNCTION, "a region that holds answers to what it read at its own refresh"),
    "loops": (OTHER_FUNCTION, "blocks run another number of times for its tokens"),
    "is_output": (FITS, "it is a matter of training, and stored in no weight"),
    "loss_weight": (FITS, "it is a matter of training, and stored in no weight"),
    "default_attn": (FITS, "it counts through the connections only, which are compared themselves"),
    "semantic_type": (FITS, "words for people; the policy does not read them"),
    "semantic_embedding": (FITS, "for transfer distances; the policy does not read it"),
    "embedding_model": (FITS, "for transfer distances; the policy does not read it"),
}


def _region_verdict(
    name: str, a: RegionSpec, b: RegionSpec, region: str, codec: str | None
) -> tuple[str, str]:
    if name != "bounds":
        return _REGION_REASONS[name]
    if fixed := _fixed_by_weights(a, b, region, codec):
        return DOES_NOT_FIT, fixed
    if a.size != b.size:
        return OTHER_FUNCTION, f"{region!r} holds other tokens: {a.size} and {b.size} (t, h, w)"
    native = codec in ("text", "visual") or (codec is None and a.stream == b.stream == "text")
    if native and a.bounds[:2] == b.bounds[:2]:
        return FITS, "its tokens carry the backbone's own positions, not the box's"
    return OTHER_FUNCTION, "positions and canvas steps follow the box"


def _fixed_by_weights(a: RegionSpec, b: RegionSpec, region: str, codec: str | None) -> str | None:
    """Why the codec's weights cannot fill a box of b's size, or None where they can."""
    if codec in ("thought", "reward") and a.numel != b.numel:
        return f"{region!r} has a learned query for each of {a.numel} tokens, {b.numel} are asked"
    if codec == "action_diffusion" and a.size[0] != b.size[0]:
        return (
            f"the diffusion head of {region!r} draws whole chunks of {a.size[0]} steps, "
            f"{b.size[0]} are asked"
        )
    made, asked = a.size[1] * a.size[2], b.size[1] * b.size[2]
    observed = a.stream == "video" and not a.is_output
    if made != asked and (codec == "vector" or (codec is None and observed)):
        unless = "" if codec else ", unless a camera fills it (say so with a binding)"
        return (
            f"the linear layer of {region!r} makes h x w = {made} tokens a canvas step, "
            f"{asked} are asked{unless}"
        )
    return None


def _connection_changes(first: CanvasSchema, second: CanvasSchema) -> list[Change]:
    plans = []
    for which, schema in (("first", first), ("second", second)):
        try:
            plans.append(compile_plan(schema))
        except PlanError as error:
            reason = f"the {which} schema: {error}"
            return [Change("plan", "does not compile", DOES_NOT_FIT, reason)]
    same_reads = _softmax(first, plans[0]) == _softmax(second, plans[1])
    names = list(dict.fromkeys([*first.layout.regions, *second.layout.regions]))
    changes = []
    for src in names:
        before, after = (_by_region(_sources(schema, src)) for schema in (first, second))
        for dst in names:
            if dst in before or dst in after:
                changes += _pair_changes(
                    src, dst, before.get(dst, []), after.get(dst, []), same_reads
                )
    kinds = [[(e.src, e.dst, e.fn) for e in plan.edges] for plan in plans]
    if kinds[0] != kinds[1] and Counter(kinds[0]) == Counter(kinds[1]):
        alike = [fn for *_, fn in kinds[0]] == [fn for *_, fn in kinds[1]]
        changes.append(
            Change(
                "topology",
                "order of the residual edges",
                OTHER_FUNCTION if alike else DOES_NOT_FIT,
                "residual edges are stored in their order: each would get another one's weights",
            )
        )
    offsets = any(s.offset for name in names for s in _sources(second, name))
    if not changes and offsets and not same_reads and first.layout.T != second.layout.T:
        changes.append(
            Change(
                "topology",
                "offsets reach other steps",
                OTHER_FUNCTION,
                "time offsets pair canvas steps within T, so other steps are read",
            )
        )
    return changes


def _pair_changes(
    src: str, dst: str, old: list[Source], new: list[Source], same_reads: bool
) -> list[Change]:
    gone, come = Counter(old) - Counter(new), Counter(new) - Counter(old)
    gone, come = list(gone.elements()), list(come.elements())
    where = f"connection {src!r} -> {dst!r}"
    if len(gone) == len(come) == 1:
        what = f"{_connection_text(gone[0])} -> {_connection_text(come[0])}"
        return [Change(where, what, *_connection_verdict(gone[0], come[0], same_reads))]
    return [
        Change(where, f"removed ({_connection_text(s)})", *_connection_verdict(s, None, same_reads))
        for s in gone
    ] + [
        Change(where, f"added ({_connection_text(s)})", *_connection_verdict(None, s, same_reads))
        for s in come
    ]


def _connection_verdict(
    old: Source | None, new: Source | None, same_reads: bool
) -> tuple[str, str]:
    kinds = [s.fn if s is not None and _is_residual(s) else None for s in (old, new)]
    if kinds[0] != kinds[1]:
        return DOES_NOT_FIT, "each residual edge has a gate and weights of its own in every block"
    if kinds[0] is not None:
        return OTHER_FUNCTION, "a residual edge adds other rows, or more or less of them"
    if same_reads:
        return FITS, "other connections say the same: every row reads the same tokens as before"
    return OTHER_FUNCTION, "cross_attention has no weights of its own, but rows read other tokens"


def _is_residual(source: Source) -> bool:
    return source.active and source.fn != "cross_attention"


def _sources(schema: CanvasSchema, region: str) -> tuple[Source, ...]:
    return connections_from(schema, region) if region in schema.layout.regions else ()


def _by_region(sources: tuple[Source, ...]) -> dict[str, list[Source]]:
    found: dict[str, list[Source]] = {}
    for source in sources:
        found.setdefault(source.region, []).append(source)
    return found


def _softmax(schema: CanvasSchema, plan: Plan) -> dict[tuple[str, int], frozenset]:
    """(region, canvas step) -> the ((region, canvas step), weight) that its rows read."""
    result = {}
    for group in plan.groups:
        reads = frozenset(
            (span.region, t, weight)
            for run, weight in zip(group.reads, group.weights, strict=True)
            for span in spans_of(schema, plan, run)
            for t in range(span.t0, span.t1)
        )
        for span in spans_of(schema, plan, (group.start, group.stop)):
            for t in range(span.t0, span.t1):
                result[span.region, t] = reads
    return result


def _metadata_changes(first: CanvasSchema, second: CanvasSchema) -> list[Change]:
    changes = []
    if first.version != second.version:
        changes.append(
            Change(
                "schema_version",
                f"{first.version} -> {second.version}",
                FITS,
                "the form of the file, not of the function",
            )
        )
    for key in dict.fromkeys([*first.metadata, *second.metadata]):
        before, after = first.metadata.get(key), second.metadata.get(key)
        if before != after:
            what = f"{key}: {_text(before)} -> {_text(after)}"
            changes.append(Change("metadata", what, *_metadata_verdict(key, first, second)))
    return changes


def _metadata_verdict(key: str, first: CanvasSchema, second: CanvasSchema) -> tuple[str, str]:
    before, after = first.metadata.get(key), second.metadata.get(key)
    if key == "framing" and (before or "image") != (after or "image"):
        return OTHER_FUNCTION, "another framing encodes camera frames to other latents"
    if key == "sharpening":
        return OTHER_FUNCTION, "it sharpens the attention of each loop, and stores no weight"
    if key == "attention":
        types = {s.fn for name in first.layout.regions for s in _sources(first, name) if s.active}
        options = [declared_options(schema.metadata) for schema in (first, second)]
        if options[0] == options[1]:
            return FITS, "the default of an option, written down or not"
        for option, fn in _SHAPING_OPTIONS.items():
            if fn in types and getattr(options[0], option) != getattr(options[1], option):
                return DOES_NOT_FIT, f"{option} is a size of the weights of each {fn} edge"
        if types - {"cross_attention"}:
            return OTHER_FUNCTION, "the options of the residual edges say what each of them reads"
    return FITS, "free words, which nothing computes with"


def _connection_text(source: Source) -> str:
    parts = [source.fn, f"weight {source.weight:g}"]
    return ", ".join([*parts, source.offset] if source.offset else parts)


def _length(embedding: tuple[float, ...] | None) -> str | None:
    return None if embedding is None else f"{len(embedding)} numbers"


def _text(value: object) -> str:
    return "none" if value is None else str(list(value) if isinstance(value, tuple) else value)
