"""Declarations of codecs: which signal each takes, what it is for, and its options in a binding.

The codecs themselves compute with torch, in canvas_robot/policy/codecs: one class for each name.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec

from canvas_robot.signals.signal import ImageSignal, TextSignal, VectorSignal

Role = Literal["frames", "instruction", "action", "reward", "thought"]

HiddenSize = Annotated[int, msgspec.Meta(ge=1, le=8192)]
Steps = Annotated[int, msgspec.Meta(ge=1, le=1000)]


class RegionBinding:
    """One region's signal and codec, both by name, and the codec's options.

    A codec declares itself by a frozen struct of this base in `CODEC_DECLARATIONS`; its fields are
    the options that a binding may give, all others are refused.

    signal_kind: what its signal must be; None: it takes none.
    components: of its vector signal; None: any number.
    role: frames of a sampled stream, the instruction, an action or reward to decode, or thought.
    native: its tokens are the backbone's own embedding; others lie on the canvas's empty token,
        position and modality vector.
    """

    signal: str | None
    signal_kind: ClassVar[type | None] = None
    components: ClassVar[int | None] = None
    role: ClassVar[Role]
    native: ClassVar[bool] = False

    @property
    def codec(self) -> str:
        """Name of the codec."""
        return self.__struct_config__.tag

    @property
    def stream(self) -> str:
        """Stream of the backbone that its region must belong to."""
        return "text" if self.role == "instruction" else "video"


class _Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class VisualBinding(RegionBinding, _Options, tag_field="codec", tag="visual"):
    """Camera frames as VAE latents."""

    signal: str
    signal_kind: ClassVar = ImageSignal
    role: ClassVar = "frames"
    native: ClassVar = True


class TextBinding(RegionBinding, _Options, tag_field="codec", tag="text"):
    """An instruction as the text encoder's embeddings."""

    signal: str
    signal_kind: ClassVar = TextSignal
    role: ClassVar = "instruction"
    native: ClassVar = True


class VectorBinding(RegionBinding, _Options, tag_field="codec", tag="vector"):
    """A measured vector; `normalise` names the statistics to use."""

    signal: str
    normalise: Literal["quantile", "mean_std"] = "quantile"
    signal_kind: ClassVar = VectorSignal
    role: ClassVar = "frames"


class ActionBinding(RegionBinding, _Options, tag_field="codec", tag="action"):
    """An action chunk by regression. `hidden`: size of the head's layer; None: the token width."""

    signal: str
    normalise: Literal["quantile", "mean_std"] = "quantile"
    hidden: HiddenSize | None = None
    signal_kind: ClassVar = VectorSignal
    role: ClassVar = "action"


class DiffusionActionBinding(RegionBinding, _Options, tag_field="codec", tag="action_diffusion"):
    """An action chunk by flow matching: `steps` runs of a head with layers of `hidden`."""

    signal: str
    normalise: Literal["quantile", "mean_std"] = "quantile"
    hidden: HiddenSize = 256
    steps: Steps = 8
    signal_kind: ClassVar = VectorSignal
    role: ClassVar = "action"


class RewardBinding(RegionBinding, _Options, tag_field="codec", tag="reward"):
    """A number for each step by regression; `normalise: none` leaves it in its own unit."""

    signal: str
    normalise: Literal["none", "quantile", "mean_std"] = "none"
    signal_kind: ClassVar = VectorSignal
    components: ClassVar = 1
    role: ClassVar = "reward"


class ThoughtBinding(RegionBinding, _Options, tag_field="codec", tag="thought"):
    """Learned tokens to think with: filled from nothing, decoded to nothing."""

    signal: ClassVar = None
    role: ClassVar = "thought"


CODEC_DECLARATIONS: dict[str, type[RegionBinding]] = {
    "visual": VisualBinding,
    "text": TextBinding,
    "vector": VectorBinding,
    "action": ActionBinding,
    "action_diffusion": DiffusionActionBinding,
    "reward": RewardBinding,
    "thought": ThoughtBinding,
}


def region_binding(fields: object) -> RegionBinding:
    """One region's entry of a binding file, checked by the declaration of the codec it names.

    Raises ValueError for an unknown codec, with those there are, and for options it does not have.
    """
    if not isinstance(fields, dict):
        raise ValueError(f"expected signal and codec, got {type(fields).__name__}")
    codec = fields.get("codec")
    if not isinstance(codec, str) or codec not in CODEC_DECLARATIONS:
        raise ValueError(f"codec: expected one of {', '.join(CODEC_DECLARATIONS)}; got {codec!r}")
    try:
        return msgspec.convert(fields, CODEC_DECLARATIONS[codec])
    except msgspec.ValidationError as error:
        raise ValueError(f"codec {codec!r}: {error}") from error
