"""The things that tasks are about, from primitive shapes, and things that only stand in the way.

Bounding boxes and densities are those of SimplerEnv's objects (ManiSkill2_real2sim, `info_*.json`);
the shapes are ours. What touches is simpler than what is drawn, and flat below, so that it rests.
"""

from __future__ import annotations

from canvas_robot.sim.props import Colour, Prop, Shape

COLOURS: dict[str, Colour] = {
    "red": (0.80, 0.11, 0.09),
    "green": (0.12, 0.55, 0.20),
    "blue": (0.10, 0.28, 0.74),
    "yellow": (0.93, 0.74, 0.12),
}

_ORANGE, _LEAF, _PURPLE = (0.93, 0.42, 0.08), (0.22, 0.50, 0.16), (0.28, 0.10, 0.34)
_PLASTIC, _HOLLOW = (0.16, 0.55, 0.33), (0.10, 0.38, 0.23)
_CLOTH, _STRIPE = (0.40, 0.52, 0.70), (0.86, 0.88, 0.90)
_CHINA, _GLAZE = (0.92, 0.91, 0.88), (0.80, 0.82, 0.85)
_BASKET, _RIM = (0.95, 0.76, 0.10), (0.98, 0.84, 0.25)
_GREY = (0.5, 0.5, 0.5)

_Vector = tuple[float, float, float]
_NOWHERE = (0.0, 0.0, 0.0)


def _felt(size: _Vector, position: _Vector = _NOWHERE) -> Shape:
    """A box that touches and is not drawn."""
    return Shape("box", size, _GREY, position, drawn=False)


def _drawn(
    kind: str,
    size: tuple[float, ...],
    rgb: Colour,
    position: _Vector = _NOWHERE,
    rpy: _Vector = _NOWHERE,
) -> Shape:
    """A shape that is drawn and touches nothing."""
    return Shape(kind, size, rgb, position, rpy, solid=False)


def cube(name: str, rgb: Colour, half: float = 0.015) -> Prop:
    """A wooden block. half: half its edge in metres."""
    return Prop(name, (half, half, half), (Shape("box", (half, half, half), rgb),))


# Its bowl at +x; the handle rises to its end.
SPOON = Prop(
    "spoon",
    (0.070, 0.0173, 0.0130),
    (
        _felt((0.0475, 0.0065, 0.0095), (-0.0225, 0.0, -0.0035)),
        Shape("ellipsoid", (0.0235, 0.0173, 0.0075), _PLASTIC, (0.0465, 0.0, -0.0055)),
        _drawn("ellipsoid", (0.0180, 0.0125, 0.0030), _HOLLOW, (0.0465, 0.0, 0.0003)),
        _drawn("capsule", (0.0062, 0.0300), _PLASTIC, (0.0010, 0.0, -0.0040), (0, 1.647, 0)),
        _drawn("capsule", (0.0068, 0.0180), _PLASTIC, (-0.0440, 0.0, 0.0018), (0, 1.772, 0)),
    ),
    density=1200.0,
)

TOWEL = Prop(
    "towel",
    (0.05, 0.05, 0.005),
    (
        Shape("box", (0.05, 0.05, 0.005), _CLOTH),
        *(
            _drawn("box", (0.0035, 0.0501, 0.0002), _STRIPE, (x, 0.0, 0.0049))
            for x in (-0.036, -0.026, 0.026, 0.036)
        ),
    ),
    density=330.0,
)

# Its leaves at +x.
CARROT = Prop(
    "carrot",
    (0.0575, 0.016, 0.019),
    (
        _felt((0.0300, 0.0135, 0.0190), (0.0180, 0.0, 0.0)),
        _felt((0.0225, 0.0100, 0.0125), (-0.0345, 0.0, -0.0065)),
        _drawn("ellipsoid", (0.0260, 0.0160, 0.0190), _ORANGE, (0.0210, 0.0, 0.0)),
        _drawn("ellipsoid", (0.0300, 0.0145, 0.0168), _ORANGE, (-0.0040, 0.0, -0.0022)),
        _drawn("ellipsoid", (0.0275, 0.0110, 0.0128), _ORANGE, (-0.0300, 0.0, -0.0062)),
        _drawn("ellipsoid", (0.0060, 0.0085, 0.0095), _LEAF, (0.0455, 0.0, 0.0010)),
        *(
            _drawn("capsule", (0.0022, 0.0050), _LEAF, (0.0500, y, z), (0.0, 1.57, turn))
            for y, z, turn in ((0.005, 0.002, 0.5), (-0.005, 0.002, -0.5), (0.0, 0.006, 0.0))
        ),
    ),
    density=700.0,
)

PLATE = Prop(
    "plate",
    (0.055, 0.055, 0.003),
    (
        Shape("cylinder", (0.055, 0.0030), _CHINA, drawn=False),
        _drawn("cylinder", (0.040, 0.0027), _CHINA, (0.0, 0.0, -0.0003)),
        _drawn("cylinder", (0.055, 0.0012), _CHINA, (0.0, 0.0, 0.0014)),
        _drawn("cylinder", (0.038, 0.0004), _GLAZE, (0.0, 0.0, 0.0026)),
    ),
    density=1000.0,
)

# Its stalk at +x.
EGGPLANT = Prop(
    "eggplant",
    (0.03915, 0.0187, 0.0190),
    (
        _felt((0.0235, 0.0155, 0.0190), (-0.0100, 0.0, 0.0)),
        _felt((0.0120, 0.0110, 0.0135), (0.0255, 0.0, -0.0055)),
        _drawn("ellipsoid", (0.0271, 0.0187, 0.0190), _PURPLE, (-0.0120, 0.0, 0.0)),
        _drawn("ellipsoid", (0.0240, 0.0140, 0.0150), _PURPLE, (0.0100, 0.0, -0.0030)),
        _drawn("ellipsoid", (0.0080, 0.0115, 0.0120), _LEAF, (0.0270, 0.0, -0.0040)),
        _drawn("capsule", (0.0026, 0.0050), _LEAF, (0.0315, 0.0, -0.0020), (0.0, 1.3, 0.0)),
    ),
    density=400.0,
)

_HALF_WALL, _WALLS = 0.0025, 0.040  # of the basket: half thickness, height over its floor


def _basket() -> Prop:
    """Its box is the invisible plane that SimplerEnv's rule speaks about: the basket's floor."""
    floor = Shape("box", (0.070, 0.045, 0.001), _BASKET)
    shapes = [floor]
    for side in (-1, 1):
        x, y, z = side * (0.065 + _HALF_WALL), side * (0.040 + _HALF_WALL), _WALLS / 2
        shapes += [
            Shape("box", (_HALF_WALL, 0.045, z), _BASKET, (x, 0.0, z)),
            Shape("box", (0.070, _HALF_WALL, z), _BASKET, (0.0, y, z)),
            _drawn("box", (0.004, 0.0465, 0.002), _RIM, (x, 0.0, _WALLS)),
            _drawn("box", (0.0715, 0.004, 0.002), _RIM, (0.0, y, _WALLS)),
        ]
    return Prop("basket", (0.065, 0.040, 0.001), tuple(shapes), fixed=True, walls=_WALLS)


BASKET = _basket()

# In the order in which a scene takes them; each episode paints them anew.
DISTRACTORS: tuple[Prop, ...] = (
    Prop("can", (0.017, 0.017, 0.022), (Shape("cylinder", (0.017, 0.022), _GREY),)),
    Prop("brick", (0.024, 0.012, 0.009), (Shape("box", (0.024, 0.012, 0.009), _GREY),)),
    Prop("lid", (0.022, 0.022, 0.006), (Shape("cylinder", (0.022, 0.006), _GREY),)),
    Prop("sponge", (0.016, 0.016, 0.012), (Shape("box", (0.016, 0.016, 0.012), _GREY),)),
)
