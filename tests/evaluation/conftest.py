"""Pictures without a display, before any test imports MuJoCo; environments that are made up."""

import gc
import importlib
import os
from pathlib import Path

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import fontManager

os.environ.setdefault("MUJOCO_GL", "egl")


@pytest.fixture(scope="module")
def little_to_collect():
    """Some benches collect garbage before each timing: what is there already is left out."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def own_fonts(monkeypatch):
    """No other fonts than those that matplotlib brings along, whatever is installed."""
    own = [entry for entry in fontManager.ttflist if "mpl-data" in entry.fname]
    monkeypatch.setattr(fontManager, "ttflist", own)


@pytest.fixture
def hand_font(tmp_path, monkeypatch, own_fonts) -> str:
    """The family of a font that has 手, and 🤖 without an outline; matplotlib knows it."""
    family = "Made Up Sans"
    builder = FontBuilder(unitsPerEm=1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "hand", "face"])
    builder.setupCharacterMap({ord("手"): "hand", ord("🤖"): "face"})
    pen = TTGlyphPen(None)
    for at, corner in enumerate([(100, 0), (900, 0), (900, 800), (100, 800)]):
        (pen.lineTo if at else pen.moveTo)(corner)
    pen.closePath()
    empty = TTGlyphPen(None).glyph()
    builder.setupGlyf({".notdef": empty, "hand": pen.glyph(), "face": empty})
    builder.setupHorizontalMetrics(dict.fromkeys([".notdef", "hand", "face"], (1000, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    names = {"familyName": family, "styleName": "Regular", "psName": "MadeUpSans-Regular"}
    builder.setupNameTable(names)
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "made_up.ttf")
    fontManager.addfont(tmp_path / "made_up.ttf")
    return family


@pytest.fixture(scope="session")
def made_up_envs():
    """The module made_up_envs beside this file, which registers its environments.

    Other processes find it, too, by "made_up_envs:made_up/NAME-v0".
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        yield importlib.import_module("made_up_envs")


@pytest.fixture
def line(made_up_envs) -> str:
    """Id of the environment with numbered episodes, two goals and pictures."""
    return "made_up_envs:made_up/Line-v0"


@pytest.fixture
def seeded(made_up_envs) -> str:
    """Id of the environment without ids, words and pictures."""
    return "made_up_envs:made_up/Seeded-v0"
