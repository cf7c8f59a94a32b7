"""CanvasWrapper: any Gymnasium environment as a binding's signals, histories and actions.

What the environment shows and takes is declared in the binding; see docs/environments.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, final

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.utils import RecordConstructorArgs

from canvas_robot.resources import resolve_config, schema_path
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import (
    Binding,
    BindingError,
    History,
    ImageSignal,
    Observation,
    VectorSignal,
    load_binding,
)
from canvas_robot.sim.env_actions import EnvActions
from canvas_robot.sim.env_sources import EnvSources, Moment


@final
class CanvasWrapper(gymnasium.Wrapper, RecordConstructorArgs):
    """One step is one control tick; observations are a region's frames, as a policy sees them.

    Args:
        env: any environment that `binding` fits.
        binding, schema: objects, files, or names of shipped files such as "widowx.yaml" and
            "widowx_tiny.json"; names and paths let the wrapped environment's spec go through JSON.

    observation_space: by region, (n, ...) its n frames, oldest first; `action_space`: the action
    signal in its own units. `info` gains "instruction", and where the binding declares the
    environment's word for it "success".

    Raises BindingError where binding and schema, or binding and environment, do not fit.
    """

    def __init__(
        self,
        env: gymnasium.Env,
        binding: Binding | str | Path,
        schema: CanvasSchema | str | Path,
    ) -> None:
        RecordConstructorArgs.__init__(self, binding=binding, schema=schema)
        gymnasium.Wrapper.__init__(self, env)
        self.binding, self.schema = _binding(binding), _schema(schema)
        self._history = History(self.schema, self.binding)
        self._sources = EnvSources(env, self.binding, self._history.signals)
        self._actions = EnvActions(env, self.binding)
        self._observation: Observation | None = None
        self._instruction, self._success_seen = "", False
        self.action_space = _vector_space(self.binding.action_signal())
        self.observation_space = self._regions_space()
        self.metadata = {**env.metadata, "render_fps": self.binding.control_rate_hz}

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        """As the environment's own pickling, which starts anew: `reset` comes next."""
        return CanvasWrapper, (self.env, *self._saved_kwargs.values())

    @property
    def canvas_observation(self) -> Observation:
        """What `CanvasPolicy.act` takes. Raises ResetNeeded before the first reset."""
        if self._observation is None:
            raise ResetNeeded("CanvasWrapper: no episode yet; call reset() first")
        return self._observation

    @property
    def instruction(self) -> str:
        """The episode's instruction now. Raises ResetNeeded before the first reset."""
        if self._observation is None:
            raise ResetNeeded("CanvasWrapper: no episode yet; call reset() first")
        return self._instruction

    @property
    def steps_per_tick(self) -> int:
        """Steps of the environment in one of this wrapper's."""
        return self._actions.steps_per_tick

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Starts an episode; seed and options go to the environment.

        Raises SignalError for an observation that a signal does not accept.
        """
        observation, info = self.env.reset(seed=seed, options=options)
        self._instruction = ""
        self._history.clear()
        return self._observe(observation, info, tick=0)

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """One control tick under an action (n,) in the action signal's units.

        Rewards of the environment's steps add up; its end ends the tick.
        Raises SignalError for an action or observation that its signal does not accept.
        """
        tick = self.canvas_observation.tick + 1
        wanted = self._actions.convert(action)
        total, terminated, truncated = 0.0, False, False
        for _ in range(self.steps_per_tick):
            observation, reward, terminated, truncated, info = self.env.step(wanted)
            total += float(reward)
            if terminated or truncated:
                break
        self._look_for_success(info, terminated or truncated)
        regions, info = self._observe(observation, info, tick)
        return regions, total, bool(terminated), bool(truncated), info

    def _observe(
        self, observation: Any, info: dict[str, Any], tick: int
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        moment = Moment(self.env, observation, info)
        self._observation = None  # until all of this one is accepted
        stamp_ns = (tick + 1) * self.binding.tick_ns
        for signal, value in self._sources.read(moment).items():
            self._history.push(signal, stamp_ns, value)
        self._instruction = self._sources.instruction(moment) or self._instruction
        if not self._instruction:
            goal = self.binding.regions[self.binding.goal_region()].signal
            raise BindingError(
                f"sources.env.{goal}: expected an instruction at the reset, got none; info has "
                f"keys {sorted(map(str, info))}; declare one of type info, attribute or text"
            )
        self._observation = self._history.observe(tick, stamp_ns)
        frames = self._observation.frames
        return {region: frames[region].values.copy() for region in frames}, self._told(info)

    def _look_for_success(self, info: dict[str, Any], ended: bool) -> None:
        """Says once where the environment never tells what the binding calls success."""
        declared = self.binding.environment
        if self._success_seen or declared is None or declared.success is None:
            return
        self._success_seen = declared.success in info
        if ended and not self._success_seen:
            self._success_seen = True
            gymnasium.logger.warn(
                f"environment.success: no step of this episode had {declared.success!r} in its "
                f"info, which has {sorted(map(str, info))}; it counts as no success"
            )

    def _told(self, info: dict[str, Any]) -> dict[str, Any]:
        told = {**info, "instruction": self._instruction}
        declared = self.binding.environment
        if declared is not None and declared.success is not None:
            told["success"] = bool(info.get(declared.success, False))
        return told

    def _regions_space(self) -> spaces.Dict:
        future = self.binding.future_regions(self.schema)
        regions = [name for name in self.binding.observed_regions() if name not in future]
        return spaces.Dict({name: self._region_space(name) for name in regions})

    def _region_space(self, region: str) -> spaces.Box:
        frames = self.schema.layout.region_spec(region).size[0]
        name = self.binding.regions[region].signal
        signal = self.binding.signals[name]
        if isinstance(signal, ImageSignal):
            return spaces.Box(0, 255, (frames, *self._sources.shape(name)), np.uint8)
        one = _vector_space(signal)
        return spaces.Box(np.tile(one.low, (frames, 1)), np.tile(one.high, (frames, 1)))


def _vector_space(signal: VectorSignal) -> spaces.Box:
    return spaces.Box(np.array(signal.low, np.float32), np.array(signal.high, np.float32))


def _binding(binding: Binding | str | Path) -> Binding:
    if isinstance(binding, Binding):
        return binding
    return load_binding(resolve_config("bindings", str(binding)))


def _schema(schema: CanvasSchema | str | Path) -> CanvasSchema:
    if isinstance(schema, CanvasSchema):
        return schema
    return CanvasSchema.from_json(schema_path(str(schema)))
