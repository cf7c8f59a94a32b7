"""What an episode came to: success by protocol, and what failed, read from the steps' info.

| protocol | true where |
|---|---|
| last | the rule holds after the last step, as SimplerEnv counts |
| any | it held after some step |
| held | it still holds 1 s after the gripper let go and went away; where the task defines it |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PROTOCOLS = {
    "last": "the rule holds after the last step",
    "any": "the rule held after some step",
    "held": "it still holds 1 s after the gripper let go and moved more than 5 cm away",
}
SUCCESS_KEYS = ("success", "is_success")
ANY_KEY, HELD_KEY = "success_any", "success_held"
STAGES = {
    "grasped": "grasped the object",
    "moved_correct": "moved the object",
    "moved_wrong": "moved another object",
}


class OutcomeError(ValueError):
    """An environment does not say whether its task is solved."""


class Outcome:
    """Follows one episode, step by step.

    success_key: entry of `info` that says whether the rule holds now; "": success or is_success.
    """

    def __init__(self, success_key: str = "") -> None:
        self._keys = (success_key,) if success_key else SUCCESS_KEYS
        self.steps = 0
        self.steps_to_success: int | None = None
        self.last = False
        self.any = False
        self.held: bool | None = None
        self.stages: dict[str, bool] = {}
        self.terminated = False

    def step(self, info: Mapping[str, Any], terminated: bool) -> None:
        """Takes what a step came to.

        Raises OutcomeError where no entry says whether the rule holds, or one that is not true or
        false.
        """
        self.steps += 1
        self.terminated = terminated
        self.last = self._succeeded(info)
        self.any = self.any or self.last or bool(_flag(info, ANY_KEY))
        if self.any and self.steps_to_success is None:
            self.steps_to_success = self.steps
        held = _flag(info, HELD_KEY)
        if held is not None:
            self.held = held
        for stage in STAGES:
            reached = _flag(info, stage)
            if reached is not None:
                self.stages[stage] = reached or self.stages.get(stage, False)

    @property
    def failure(self) -> str:
        """What failed, in words; "" where nothing did."""
        if self.any:
            return self._lost()
        if "grasped" not in self.stages:
            return "ended by the environment" if self.terminated else "out of steps"
        if self.stages["grasped"]:
            return "grasped, never in place"
        if self.stages.get("moved_wrong"):
            return "moved another object"
        if self.stages.get("moved_correct"):
            return "moved, never grasped"
        return "never grasped"

    def _lost(self) -> str:
        if not self.last:
            return "succeeded, then lost"
        return "in place, never let go" if self.held is False else ""

    def _succeeded(self, info: Mapping[str, Any]) -> bool:
        for key in self._keys:
            found = _flag(info, key)
            if found is not None:
                return found
        wanted = " or ".join(f"info[{key!r}]" for key in self._keys)
        raise OutcomeError(
            f"success: expected {wanted} after each step, got info with {sorted(info)}; name the "
            "entry that says whether the task is solved: --success-key KEY"
        )


def _flag(info: Mapping[str, Any], key: str) -> bool | None:
    """A truth value, also as an array or tensor of one element; None: no such entry."""
    value: Any = info
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    try:
        number = value.item() if hasattr(value, "item") else value
        if number in (0, 1):
            return bool(number)
    except (ValueError, RuntimeError):  # of several elements: NumPy's and torch's own words
        pass
    raise OutcomeError(f"info[{key!r}]: expected true or false, got {value!r}")
