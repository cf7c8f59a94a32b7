"""Laws of the picture: it shows what the topology allows, in the same colours, for every schema."""

import itertools
import re
from xml.etree import ElementTree

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import FancyArrowPatch

from canvas_robot.evaluation.schema_picture import (
    PALETTE,
    _hatches,
    _line_style,
    draw_schema,
    mask_marks,
    region_colours,
    schema_figure,
)
from canvas_robot.resources import config_root
from canvas_robot.schema import (
    ATTENTION_TYPES,
    CanvasLayout,
    CanvasSchema,
    CanvasTopology,
    Connection,
    OverlapError,
    RegionSpec,
    compile_plan,
)

SCHEMAS = sorted((config_root() / "schemas").glob("*.json"))


def small_schema():
    regions = {
        "cam": RegionSpec((0, 3, 0, 2, 0, 2), period=2),
        "goal": RegionSpec((1, 2, 2, 3, 0, 2), stream="text"),
        "act": RegionSpec((1, 4, 2, 3, 2, 3)),
    }
    connections = [
        Connection("cam", "cam", t_src=0, t_dst=-1),
        Connection("cam", "goal", weight=0.5),
        Connection("act", "cam", weight=2.0, t_src=0, t_dst=0),
        Connection("act", "act"),
        Connection("act", "goal", fn="gated"),
        Connection("goal", "act", fn="none"),
    ]
    return CanvasSchema(CanvasLayout(4, 3, 3, 8, regions, 1), CanvasTopology(connections))


def test_the_marks_are_the_dense_mask_by_canvas_steps():
    schema = small_schema()
    mask = schema.topology.to_attention_mask(schema.layout)
    marked = {
        (mark.row, mark.column): mark.weight for mark in mask_marks(schema, compile_plan(schema))
    }
    layout = schema.layout
    cells = [(name, t) for name in layout.regions for t in layout.region_timesteps(name)]
    for row in cells:
        for column in cells:
            block = mask[layout.region_indices_at_t(*row)][:, layout.region_indices_at_t(*column)]
            assert (block == block[0, 0]).all()
            expected = block[0, 0].item() if (row[0], column[0]) != ("goal", "act") else 0.0
            assert marked.get((row, column), 0.0) == expected


def test_a_mark_carries_its_function_type():
    schema = small_schema()
    kinds = {
        (m.row.region, m.column.region): m.fn for m in mask_marks(schema, compile_plan(schema))
    }
    assert kinds["act", "goal"] == "gated"
    assert kinds["act", "cam"] == "cross_attention"
    assert ("goal", "act") not in kinds


@pytest.mark.parametrize("path", SCHEMAS, ids=[path.stem for path in SCHEMAS])
def test_every_shipped_schema_is_drawn_with_all_its_names_in_all_panels(path, tmp_path):
    schema = CanvasSchema.from_json(path)
    draw_schema(schema, tmp_path / "picture.svg", path.stem)
    text = (tmp_path / "picture.svg").read_text(encoding="utf-8")
    ElementTree.fromstring(text)
    assert text.count("<!-- Clock -->") == 1  # text is drawn as outlines under its own comment
    for name in schema.layout.regions:
        assert text.count(f"<!-- {name} -->") >= 4
    for name, colour in region_colours(schema).items():
        assert text.lower().count(colour) >= 4, name


def crowd(count, connect=True):
    """Many regions, all connected with many different weights."""
    regions = {
        f"region_{i}": RegionSpec((0, 2, i, i + 1, 0, 1), period=1 + i % 3) for i in range(count)
    }
    pairs = itertools.product(regions, regions) if connect else ()
    connections = [Connection(a, b, weight=1 + i % 37 / 10) for i, (a, b) in enumerate(pairs)]
    return CanvasSchema(CanvasLayout(2, count, 1, 8, regions), CanvasTopology(connections))


def many_offsets():
    """Several connections between the same two regions, and of regions with themselves."""
    regions = {f"r{i}": (0, 4, i, i + 1, 0, 1) for i in range(4)}
    pairs = [("r0", "r0"), ("r1", "r1"), ("r2", "r2"), ("r3", "r3"), ("r0", "r2"), ("r1", "r0")]
    connections = [
        Connection(a, b, fn=fn, t_src=0, t_dst=offset)
        for a, b in pairs
        for fn, offset in (("cross_attention", -1), ("cross_attention", -2), ("mamba", -1))
    ]
    topology = CanvasTopology([*connections, Connection("r0", "r2"), Connection("r1", "r1")])
    return CanvasSchema(CanvasLayout(4, 4, 1, 8, regions), topology)


def texts_of(schema):
    figure = schema_figure(schema, "schema")
    return [t.get_text() for axes in (figure, *figure.axes) for t in axes.texts]


ODD_NAMES = ("手", "🤖 arm", "カメラ", "로봇 팔", "ذراع", "हाथ", "👩‍🔬 team", "手" * 40)


def odd_names(names=ODD_NAMES):
    """Every region reads the first two."""
    regions = {name: (0, 1, i, i + 1, 0, 1) for i, name in enumerate(names)}
    pairs = itertools.product(names, names[:2])
    topology = CanvasTopology([Connection(a, b) for a, b in pairs])
    return CanvasSchema(CanvasLayout(1, len(regions), 1, 8, regions), topology)


def extreme_clock(periods, rate=5):
    regions = {
        f"region_{i}": RegionSpec((0, 1, i, i + 1, 0, 1), period=p) for i, p in enumerate(periods)
    }
    layout = CanvasLayout(1, len(regions), 1, 8, regions)
    return CanvasSchema(layout, metadata={"control_rate_hz": rate})


def long_names_in_many_steps():
    regions = {
        f"{i}_of_a_region_that_has_a_long_name_{i}": (i, i + 2, i, i + 1, 0, 1) for i in range(5)
    }
    return CanvasSchema(CanvasLayout(6, 5, 1, 8, regions))


DRAWN = {path.stem: CanvasSchema.from_json(path) for path in SCHEMAS}
DRAWN |= {"many offsets": many_offsets(), "odd names": odd_names()}
DRAWN |= {
    f"{count} long names": odd_names([f"{i}_a_region_of_a_long_name_{i}" for i in range(count)])
    for count in (2, 9, 12, 13, 25, 40, 60)
}
DRAWN |= {"long names in many steps": long_names_in_many_steps()}
DRAWN |= {"slow": extreme_clock([1, 7, 10**6, 123_456_789, 2**31 - 2, 2**31 - 1], 1.23456e-300)}
DRAWN |= {"fast": extreme_clock([1, 3, 10**9], 1e300)}
DRAWN |= {"20 regions": crowd(20, connect=False), "100 regions": crowd(100, connect=False)}


@pytest.mark.parametrize("name", DRAWN)
def test_labels_stay_inside_the_picture_and_off_one_another(name):
    figure = schema_figure(DRAWN[name], name)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    texts = [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]
    texts += [text for axes in figure.axes if (key := axes.get_legend()) for text in key.texts]
    boxes = [(text.get_text(), text.get_window_extent(canvas.get_renderer())) for text in texts]
    page = figure.bbox
    for text, box in boxes:
        assert page.x0 <= box.x0 and box.x1 <= page.x1, text
        assert page.y0 <= box.y0 and box.y1 <= page.y1, text
    for (first, a), (second, b) in itertools.combinations(boxes, 2):
        assert not a.overlaps(b), (first, second)


def test_a_png_has_a_readable_size(tmp_path):
    draw_schema(small_schema(), tmp_path / "picture.png", "small")
    data = (tmp_path / "picture.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = (int.from_bytes(data[i : i + 4], "big") for i in (16, 20))
    assert width == 1700 and 1200 < height < 1700


def test_names_are_drawn_as_they_are(tmp_path):
    regions = {"$a$ <b>&": (0, 1, 0, 1, 0, 1), "_hidden": (0, 1, 1, 2, 0, 1)}
    schema = CanvasSchema(CanvasLayout(1, 2, 1, 8, regions))
    draw_schema(schema, tmp_path / "picture.svg", "odd $names$")
    text = (tmp_path / "picture.svg").read_text(encoding="utf-8")
    assert "odd $names$" in text and len(re.findall(r"_hidden", text)) >= 4


def test_a_large_causal_canvas_is_drawn_without_its_dense_mask(tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("the (N, N) mask was made")

    monkeypatch.setattr(CanvasTopology, "to_attention_mask", refuse)
    regions = {f"r{i}": (0, 8, 8 * i, 8 * i + 8, 0, 64) for i in range(8)}
    schema = CanvasSchema(
        CanvasLayout(8, 64, 64, 8, regions), CanvasTopology.causal_temporal(list(regions))
    )
    draw_schema(schema, tmp_path / "picture.png", "large")
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_a_schema_without_connections_or_with_many_regions_is_drawn():
    regions = {f"r{i}": (0, 1, i, i + 1, 0, 1) for i in range(20)}
    schema = CanvasSchema(CanvasLayout(2, 20, 1, 8, regions))
    assert len(schema_figure(schema, "many").axes) == 4
    assert len(set(region_colours(schema).values())) == len(PALETTE)


def graph_of(*connections):
    """The graph's panel of a schema of two regions, over four canvas steps, or of one."""
    regions = {"a": (0, 4, 0, 1, 0, 1), "b": (0, 4, 1, 2, 0, 1)}
    used = {name for c in connections for name in (c.src, c.dst)} or set(regions)
    layout = CanvasLayout(4, 2, 1, 8, {name: regions[name] for name in sorted(used)})
    return schema_figure(CanvasSchema(layout, CanvasTopology(list(connections))), "graph").axes[2]


def labels_of(axes):
    return {text.get_text() for text in axes.texts}


DENSE, BEFORE = Connection("a", "b"), Connection("a", "b", t_src=0, t_dst=-1)


@pytest.mark.parametrize(
    ("connections", "label"),
    [
        ([BEFORE], "t-1"),
        ([DENSE, BEFORE], "all t, t-1"),
        ([BEFORE, BEFORE], "t-1"),
        ([Connection("a", "b", weight=3), BEFORE], "all t x3, t-1 x1"),
        (
            [Connection("a", "b", t_src=0, t_dst=0), Connection("a", "b", t_src=2)],
            "same t, t_src=2",
        ),
        (
            [Connection("a", "b", t_src=0, t_dst=-i) for i in range(1, 4)] + [DENSE],
            "t-1, t-2, t-3, ... and 1 more",
        ),
    ],
)
def test_an_arrow_tells_every_time_offset_of_the_connections_that_it_stands_for(connections, label):
    graph = graph_of(*connections)
    assert labels_of(graph) == {"a", "b", label}
    assert len([p for p in graph.patches if isinstance(p, FancyArrowPatch)]) == 1


def test_two_ways_that_differ_in_a_connection_are_two_arrows():
    graph = graph_of(DENSE, BEFORE, Connection("b", "a"))
    assert labels_of(graph) == {"a", "b", "all t, t-1"}
    arrows = [p for p in graph.patches if isinstance(p, FancyArrowPatch)]
    assert len(arrows) == 2
    assert labels_of(graph_of(DENSE, Connection("b", "a"))) == {"a", "b"}


def test_a_ring_tells_its_time_offsets_by_function_type_in_its_colour():
    graph = graph_of(
        Connection("a", "a"),
        Connection("a", "a", t_src=0, t_dst=-1),
        Connection("a", "a", fn="mamba", t_src=0, t_dst=-2),
        Connection("a", "a", fn="gated"),
    )
    assert labels_of(graph) == {"a", "itself: all t, t-1", "itself: t-2"}
    key = {t.get_text(): h.get_color() for t, h in zip(*key_of(graph), strict=True)}
    colours = {text.get_text(): text.get_color() for text in graph.texts}
    assert colours["itself: all t, t-1"] == key["cross_attention"]
    assert colours["itself: t-2"] == key["mamba"]


def key_of(axes):
    key = axes.get_legend()
    return (key.get_texts(), key.get_lines()) if key else ([], [])


@pytest.mark.parametrize(
    ("connections", "types"),
    [
        ([], []),
        ([Connection("a", "b", fn="none"), Connection("b", "a", weight=0)], []),
        ([Connection("a", "b", fn="gated")], ["gated"]),
        ([Connection("a", "b", fn="gated"), Connection("b", "a")], ["cross_attention", "gated"]),
    ],
)
def test_the_graphs_key_names_the_types_that_are_drawn(connections, types):
    texts, _ = key_of(graph_of(*connections))
    assert [text.get_text() for text in texts] == types


def test_the_one_region_of_a_schema_is_named_beside_its_dot():
    graph = graph_of(Connection("a", "a"))
    figure = graph.figure
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    name, dot = (
        x.get_window_extent(canvas.get_renderer()) for x in (graph.texts[0], graph.lines[0])
    )
    assert not name.overlaps(dot)


def test_a_crowd_is_drawn_with_short_keys_that_say_how_many_they_leave_out():
    figure = schema_figure(crowd(40), "crowd")
    assert figure.get_size_inches()[1] < 25
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert texts.count("... and 16 more") == 2  # below each of the two blocks of the grid
    keys = [t.get_text() for a in figure.axes if a.get_legend() for t in a.get_legend().get_texts()]
    assert len(keys) < 20 and "... and 29 more" in keys
    arrows = [p for axes in figure.axes for p in axes.patches if isinstance(p, FancyArrowPatch)]
    assert not arrows  # 1600 connections are lines of one collection


def test_letters_that_no_font_has_are_escaped_and_that_is_said(tmp_path, own_fonts, caplog):
    figure = schema_figure(odd_names(), "手")
    figure.savefig(tmp_path / "picture.png")  # a warning of matplotlib would be an error
    texts = [t.get_text() for axes in (figure, *figure.axes) for t in axes.texts]
    assert texts.count("letters that no installed font has are escaped") == 1
    assert texts.count(r"\u624b") == 5  # the title, and once in each panel
    assert texts.count(r"\U0001f916 arm") == 4
    assert texts.count("ذراع") == 4  # DejaVu Sans, which matplotlib brings, has these letters
    assert not caplog.records
    assert not [t for t in texts_of(odd_names(("arm", "hand"))) if "escaped" in t]


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_font_that_has_the_letters_is_used_without_a_word(ending, tmp_path, hand_font, caplog):
    draw_schema(odd_names(("手", "arm")), tmp_path / f"picture.{ending}", "手")
    assert not caplog.records
    assert not [
        text for text in texts_of(odd_names(("手", "arm"))) if "escaped" in text or "u624b" in text
    ]
    if ending == "svg":
        text = (tmp_path / "picture.svg").read_text(encoding="utf-8")
        assert text.count("<!-- 手 -->") == 5
        assert f"{hand_font.replace(' ', '')}-" in text  # a glyph of that font


@pytest.mark.parametrize(
    ("rate", "period", "note"),
    [
        (5, 3, "1.67 Hz"),
        (1000, 1, "1000 Hz"),
        (48_000, 1, "48000 Hz"),
        (1e12, 3, "3.33e+11 Hz"),
        (5, 2**31 - 1, "2.33e-09 Hz"),
    ],
)
def test_the_clock_says_how_often_a_region_is_refreshed(rate, period, note):
    assert note in texts_of(extreme_clock([period], rate))


def test_the_clock_counts_a_cycle_up_to_a_billion():
    def heading(periods):
        return next(t for t in texts_of(extreme_clock(periods)) if t.startswith("control ticks"))

    assert heading([1, 40]).endswith("the first 32 of a cycle of 40 ticks")
    assert heading([2**31 - 1, 2**31 - 2]).endswith("of a cycle of more than a billion ticks")


def test_a_picture_of_another_kind_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected a file that ends with \.png or \.svg"):
        draw_schema(small_schema(), tmp_path / "picture.jpg", "small")


def test_a_schema_that_does_not_compile_is_refused(tmp_path):
    layout = CanvasLayout(1, 2, 2, 8, {"a": (0, 1, 0, 2, 0, 2), "b": (0, 1, 0, 1, 0, 1)})
    with pytest.raises(OverlapError):
        draw_schema(CanvasSchema(layout), tmp_path / "picture.png", "overlap")


def test_a_schema_without_regions_is_drawn(tmp_path):
    empty = CanvasSchema(CanvasLayout(2, 2, 2, 8))
    draw_schema(empty, tmp_path / "empty.png", "empty")
    assert texts_of(empty).count("no region") == 2  # now, and after


def test_of_too_many_blocks_of_the_grid_the_last_are_counted():
    regions = {f"a region of step {t}": (t, t + 1, 0, 2, 0, 2) for t in range(20)}
    texts = texts_of(CanvasSchema(CanvasLayout(20, 2, 2, 8, regions)))
    drawn = [text for text in texts if text.startswith("t=")]
    (told,) = [text for text in texts if text.startswith("... and ")]
    assert 4 <= len(drawn) < 20 and told == f"... and {20 - len(drawn)} more"


def test_every_function_type_looks_different():
    fns = tuple(sorted(set(ATTENTION_TYPES) - {"cross_attention", "none"}))
    assert len({_line_style(fn, fns) for fn in fns}) == len(set(_hatches(fns).values())) == len(fns)
