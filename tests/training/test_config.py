"""Laws of configurations: every key is checked, overrides are laid on top, mistakes are named."""

import pytest

from canvas_robot.resources import config_root, resolve_config, schema_path
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import load_binding
from canvas_robot.training.autoencoder import AutoencoderConfig
from canvas_robot.training.config import ConfigError
from canvas_robot.training.config_file import config_of, differences, load_config, with_overrides
from canvas_robot.training.plain_config import PlainTrainConfig

LEAST = {"data": {"folder": "somewhere"}, "steps": 10, "batch_size": 2}
SHIPPED = sorted(path.name for path in (config_root() / "train").glob("*.yaml"))
OF_OTHERS = {"demo_backbone.yaml": AutoencoderConfig, "plain_sim.yaml": PlainTrainConfig}
TRAINED = [name for name in SHIPPED if name not in OF_OTHERS]


def made(*overrides):
    return config_of(with_overrides(LEAST, overrides), "given")


def test_the_shipped_configurations_are_these():
    assert SHIPPED == [
        "bridge_v2.yaml",
        "demo_actions.yaml",
        "demo_adapt.yaml",
        "demo_backbone.yaml",
        "demo_balanced.yaml",
        "demo_pretrain.yaml",
        "plain_sim.yaml",
        "tiny_sim.yaml",
        "tiny_sim_pretrain.yaml",
    ]


@pytest.mark.parametrize("name", OF_OTHERS)
def test_what_other_commands_train_has_a_configuration_of_its_own(name):
    path = resolve_config("train", name)
    assert isinstance(load_config(path, kind=OF_OTHERS[name]), OF_OTHERS[name])
    with pytest.raises(ConfigError, match="unknown key"):
        load_config(path)


@pytest.mark.parametrize("name", TRAINED)
def test_a_shipped_configuration_loads_and_its_declarations_fit_one_another(name):
    config = load_config(resolve_config("train", name))
    schema = CanvasSchema.from_json(schema_path(config.schema))
    load_binding(resolve_config("bindings", config.binding)).check_schema(schema)


@pytest.mark.parametrize("name", TRAINED)
def test_a_resolved_configuration_is_read_back_with_every_key(name, tmp_path):
    config = load_config(resolve_config("train", name), ["steps=7000"])
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert load_config(tmp_path / "config.yaml") == config
    assert config.steps == 7000


@pytest.mark.parametrize(
    "override, get, value",
    [
        ("optimiser.lr=1e-4", lambda c: c.optimiser.lr, 1e-4),
        ("optimiser.betas=[0.8, 0.9]", lambda c: c.optimiser.betas, (0.8, 0.9)),
        ("optimiser.clip_norm=off", lambda c: c.optimiser.clip_norm, "off"),
        ("ema.decay=0.99", lambda c: c.ema.decay, 0.99),
        ("curriculum={warmup_fraction: 0.5}", lambda c: c.curriculum.warmup_fraction, 0.5),
        ("data.rules.actions=naive", lambda c: c.data.rules.actions, "naive"),
        ("data.holdout=off", lambda c: c.data.holdout, "off"),
        ("data.holdout=0.1", lambda c: c.data.holdout, 0.1),
        ("gradient_checkpointing=true", lambda c: c.gradient_checkpointing, True),
        ("precision=no", lambda c: c.precision, "no"),
        ("run=a=b", lambda c: c.run, "a=b"),
    ],
)
def test_an_override_is_laid_on_top(override, get, value):
    assert get(made(override)) == value


def test_later_overrides_win_and_the_values_given_stay_as_they_are():
    data = {"data": {"folder": "a"}, "steps": 1, "batch_size": 1}
    assert with_overrides(data, ["steps=2", "data.folder=b", "steps=3"])["steps"] == 3
    assert data == {"data": {"folder": "a"}, "steps": 1, "batch_size": 1}


@pytest.mark.parametrize(
    "override, said",
    [
        ("optimser.lr=1", "given: unknown key optimser; did you mean optimiser?"),
        ("optimiser.lrr=1", "given: unknown key optimiser.lrr; did you mean lr?"),
        ("data.rules.action=naive", "given: unknown key data.rules.action; did you mean actions?"),
        ("zzz=1", "given: unknown key zzz; there are data, schema"),
        ("optimiser.lr=0", "given: optimiser.lr: expected a number > 0 and <= 10, got 0"),
        ("optimiser.lr=.nan", "given: optimiser.lr: expected a number > 0 and <= 10, got nan"),
        ("optimiser.lr=.inf", "got inf"),
        ("optimiser.lr=high", "got 'high'"),
        ("optimiser.lr=true", "got True"),
        ("optimiser.betas=[0.9]", "expected a list of 2"),
        ("optimiser.betas=[0.9, 1]", "given: optimiser.betas[1]: expected a number >= 0 and < 1"),
        ("optimiser.clip_norm=0", "expected a number > 0 and <= 1e+09 or off, got 0"),
        ("ema.decay=1", "given: ema.decay: expected a number >= 0 and < 1, got 1"),
        ("ema=on", "given: ema: expected a section of keys and values or off, got 'on'"),
        ("curriculum.warmup_fraction=1", "curriculum.warmup_fraction: expected"),
        ("steps=0", "given: steps: expected a whole number >= 1"),
        ("steps=1e3", "got 1000.0"),
        ("steps=", "got None"),
        ("batch_size=70000", "<= 65536, got 70000"),
        ("seed=-1", "given: seed: expected a whole number >= 0"),
        ("loops=65", "<= 64, got 65"),
        ("mode=finetune", "given: mode: expected adapt or pretrain, got 'finetune'"),
        ("precision=fp16", "given: precision: expected no or bf16, got 'fp16'"),
        ("gradient_checkpointing=maybe", "expected true or false or auto, got 'maybe'"),
        ("backbone=tiny", "given: backbone: expected a section of keys and values, got 'tiny'"),
        ("backbone.dtype=int8", "expected float32 or bfloat16 or float16, got 'int8'"),
        ("data.workers=-1", "data.workers: expected a whole number >= 0 and <= 256, got -1"),
        ("data.holdout=1.5", "data.holdout: expected a number > 0 and < 1 or a text, got 1.5"),
        ("data.holdout=train", "holdout: expected another split"),
        ("data.crops=2", "crops: pictures are read whole"),
        ("mode=pretrain", "freeze: mode 'pretrain' trains the whole backbone"),
        ("optimiser.warmup_steps=10", "optimiser.warmup_steps: expected fewer than the 10 steps"),
        ("steps", "override 'steps': expected key=value"),
        ("=3", "override '=3': expected key=value"),
        ("data..folder=x", "override 'data..folder=x': expected key=value"),
        ("optimiser.lr=[1", "override 'optimiser.lr=[1': expected YAML"),
    ],
)
def test_a_mistake_is_named_with_its_key_and_what_was_expected(override, said):
    with pytest.raises(ConfigError) as error:
        made(override)
    assert said in str(error.value)


def test_what_trains_is_float32():
    with pytest.raises(ConfigError, match="freeze 'none' expects dtype float32 without int8, got"):
        made("freeze=none", "backbone.dtype=bfloat16")
    with pytest.raises(ConfigError, match="got float32 int8"):
        made("freeze=half", "backbone.int8=true")


@pytest.mark.parametrize("key", ["steps", "batch_size", "data"])
def test_a_missing_key_is_named(key):
    with pytest.raises(ConfigError, match=f"given: {key}: expected a value, it is missing"):
        config_of({k: v for k, v in LEAST.items() if k != key}, "given")


@pytest.mark.parametrize(
    "text, said",
    [
        (b"steps: [1", "expected YAML"),
        (b"- 1", "expected keys and values, got [1]"),
        (b"\xff\xfe", "expected YAML"),
        (b"steps: 1\nsteps: 2", "key 'steps' comes twice"),
        (b"a" * (1 << 21), "expected at most 1,048,576 bytes"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused_by_name(text, said, tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_bytes(text)
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert str(error.value).startswith(f"{path}: ") and said in str(error.value)


def test_differences_name_keys_with_dots():
    changed = differences(made(), made("optimiser.lr=1e-4", "steps=20"))
    assert changed == {"optimiser.lr": (3e-4, 1e-4), "steps": (10, 20)}
