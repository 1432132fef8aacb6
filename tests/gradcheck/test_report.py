"""What a check says: as text, HTML, data, assertion and picture."""

import dataclasses
import json
import linecache
import subprocess
import sys
import types
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from findings import has
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex

import spiral_autograd as sa
from spiral_autograd.gradcheck import GradientReport, Row
from spiral_autograd.gradcheck.finding import found
from spiral_autograd.gradcheck.pictures import CELLS, RED, coarse
from spiral_autograd.gradcheck.words import SENTENCES

NAN = float("nan")


@pytest.fixture(autouse=True, scope="module")
def _quoted():
    SENTENCES["quoted"] = "{text}"  # of any text
    yield
    del SENTENCES["quoted"]


def said_as(*texts, **fields):
    """Findings that say what a text says."""
    return tuple(found("quoted", text=text, **fields) for text in texts if text)


def row(name="W", shape=(3, 2), verdict="match", why="", **changes):
    changes.setdefault("findings", said_as(why))
    values = {"scale": 1.5, "max_abs": 2e-16, "max_rel": 1e-16, "index": (0,) * len(shape)}
    return Row(name, shape, verdict=verdict, **{**values, **changes})


def pair(name, ours, theirs, verdict="wrong", index=None, **changes):
    """A row with its two gradients."""
    shape = np.shape(theirs)
    return row(name, shape, verdict, handwritten=ours, automatic=theirs, index=index, **changes)


def report(*rows, notes=(), failures=(), **changes):
    said = {"remarks": said_as(*notes), "faults": said_as(*failures)}
    return GradientReport("Affine", "autograd", rows, **said, **changes)


class Affine:
    def __init__(self):
        self.W, self.b = np.ones((3, 2)), np.zeros(2)

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, dout):
        self.dW = self.x.T @ dout
        self.db = np.mean(dout, axis=0)  # the mistake
        return dout @ self.W.T


@pytest.fixture(scope="module")
def wrong():
    return sa.check_layer(Affine(), np.random.default_rng(0).standard_normal((4, 3)))


# -------------------- text --------------------


def test_the_text_has_a_table_the_why_and_the_place(wrong):
    lines = str(wrong).splitlines()
    assert lines[0] == "Affine: 1 of 3 gradients is wrong (b)"
    assert lines[1] == "compared with autograd (float64; match: within 1e-10)"
    assert lines[3].split("  ")[-1] == "verdict"
    assert [line.split()[0] for line in lines[4:7]] == ["x", "W", "b"]
    assert [line.split()[-1] for line in lines[4:7]][-1] == "wrong"
    why = lines.index(next(line for line in lines if line.startswith("b: ")))
    assert lines[why - 1] == ""
    place = next(line for line in lines if "np.mean" in line)
    assert place.startswith("    test_report.py:")
    assert place.endswith(": self.db = np.mean(dout, axis=0)  # the mistake")


def test_the_columns_stand_under_each_other():
    said = report(row(), row("gamma", (100, 20, 3), "approximate", index=(99, 1, 0)))
    head, *table = said.table().splitlines()
    for title in ("shape", "largest", "max |diff|", "relative error", "at"):
        end = head.index(f" {title} ") + len(title) + 1
        assert all(line[end - 1] != " " and line[end] == " " for line in table)
    start = head.index("verdict")
    assert [line[start:] for line in table] == ["match", "approximate"]
    head, *table = str(said).splitlines()[3:6]
    assert head.split() == ["shape", "relative", "error", "at", "verdict"]
    assert "1e-16" in table[0]
    assert "(0,0)" not in table[0]  # where it is right, nobody asks where
    assert "(99,1,0)" in table[1]


@given(
    st.lists(
        st.builds(
            row,
            name=st.text(min_size=1, max_size=150),
            shape=st.lists(st.integers(0, 10**9), max_size=12).map(tuple),
            verdict=st.sampled_from("exact match idealised approximate wrong missing".split()),
            why=st.text(max_size=300),
            max_abs=st.floats(),
            index=st.lists(st.integers(0, 10**9), max_size=12).map(tuple) | st.none(),
            lines=st.just(()) | st.just((("/a/long/" + "path" * 60 + ".py", 12),)),
        ),
        max_size=4,
    ),
    st.lists(st.text(max_size=200), max_size=3),
)
def test_the_text_fits_eighty_columns_and_shows_each_verdict(rows, notes):
    said = report(*rows, notes=tuple(notes), failures=tuple(notes[:1]))
    lines = str(said).splitlines()
    assert max(len(line) for line in lines if not line.startswith("    ")) <= 80
    assert max(map(len, (*lines, *said.table().splitlines()))) <= 100  # lines of code, and numbers
    for one in rows:
        assert any(line.endswith(one.verdict) for line in lines)


def test_what_is_too_long_loses_its_middle():
    name = "layers[12].attention." + "very_" * 20 + "long.weight"
    line = next(line for line in str(report(row(name, (64,) * 9))).splitlines() if "…" in line)
    assert line.startswith("layers[12].att")
    assert "weight" in line
    assert line.endswith("match")


def test_many_rows_each_have_a_line():
    lines = str(report(*(row(f"W{i}") for i in range(200)))).splitlines()
    assert sum(line.startswith("W") for line in lines) == 200


def test_failures_stand_before_the_table_and_are_no_notes():
    said = report(row(), notes=("aside", "grave"), failures=("grave", "grave"))
    lines = str(said).splitlines()
    assert [line for line in lines if "grave" in line] == ["failure: grave"]
    assert [line for line in lines if line.startswith("note: ")] == ["note: aside"]
    table = next(i for i, line in enumerate(lines) if "verdict" in line)
    assert lines.index("failure: grave") < table < lines.index("note: aside")
    html = said._repr_html_()
    assert html.index("grave") < html.index("<table>") < html.index("aside")
    assert html.count("grave") == 1


def test_failures_stand_in_the_place_of_an_empty_table():
    text = str(report(failures=("the two cannot be run",)))
    assert "the two cannot be run" in text
    assert "verdict" not in text


@pytest.mark.parametrize("evil", ["\x1b[2J", "\r", "\x07", "\x9b31m", "\u202e", "\udc80"])
def test_what_commands_a_terminal_does_not_reach_one(evil):
    said = GradientReport(
        f"La{evil}yer",
        "autograd",
        (row(f"W{evil}", verdict="wrong", why=f"the mark {evil} is wrong"),),
        remarks=said_as(f"note {evil}"),
        faults=said_as(f"failure {evil}"),
        unchecked=(f"mask{evil}",),
    )
    drawn = dataclasses.replace(said, rows=(pair(f"W{evil}", np.ones(2), np.zeros(2)),))
    title = drawn.plot().get_suptitle()
    for text in (str(said), repr(said), said._repr_html_(), title):
        assert evil not in text
        assert "mask" in text
    with pytest.raises(AssertionError) as caught:
        said.raise_if_wrong()
    assert evil not in str(caught.value)
    assert evil in said.rows[0].name  # the data are as they were


def test_names_in_errors_do_not_command_a_terminal():
    kind = type("Red\x1b[31m", (), {"forward": lambda self, x: x})
    with pytest.raises(sa.CheckError) as caught:
        sa.check_layer(kind(), np.ones((2, 3)))
    assert "\x1b" not in str(caught.value)
    assert "Red" in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "title"),
    [
        ("match", "right"),
        ("match wrong match", "1 of 3 gradients is wrong (W1)"),
        ("wrong wrong", "2 of 2 gradients are wrong (W0, W1)"),
        ("match missing", "1 of 2 gradients is missing (W1)"),
        ("wrong missing", "2 of 2 gradients are wrong or missing (W0, W1)"),
        ("missing", "the gradient of W0 is missing"),
    ],
)
def test_the_title_says_the_whole(rows, title):
    said = report(*(row(f"W{n}", verdict=verdict) for n, verdict in enumerate(rows.split())))
    assert str(said).splitlines()[0] == f"Affine: {title}"


def test_an_assertion_begins_with_the_first_reason():
    right = row("x", why="a kink")
    wrong = [row(n, verdict="wrong", why=f"is\nof  {n}") for n in "Wb"]
    with pytest.raises(AssertionError) as caught:
        report(right, *wrong, failures=("grave",)).raise_if_wrong()
    assert str(caught.value).splitlines()[:2] == ["W: is of W", ""]
    with pytest.raises(AssertionError, match=r"^grave\n\nAffine: NOT right\n"):
        report(right, failures=("grave",)).raise_if_wrong()


def test_what_is_zero_but_for_rounding_is_zero():
    class Normalised:  # after it, no shift is left
        b = np.ones(4)

        def forward(self, x):
            z = x + self.b
            self.std = z.std(axis=0)
            self.y = (z - z.mean(axis=0)) / self.std
            return self.y

        def backward(self, dout):
            dx = dout - dout.mean(axis=0) - self.y * (self.y * dout).mean(axis=0)
            self.db = (dx / self.std).sum(axis=0)
            return dx / self.std

    said = sa.check_layer(Normalised(), np.random.default_rng(0).standard_normal((5, 4)))
    (b,) = (one for one in said.rows if one.name == "b")
    assert said.ok
    assert 0 < b.max_abs < 1e-14
    assert b.max_rel == 0
    assert "  0  " in next(line for line in str(said).splitlines() if line.startswith("b"))


def test_an_empty_report_has_a_text():
    assert str(report()).startswith("Affine: right")


def test_a_prompt_shows_the_table(wrong):
    assert repr(wrong) == str(wrong)


def test_a_statement_of_several_lines_is_shown_whole():
    class Square:
        def forward(self, x):
            self.x = x
            return x**2

        def backward(self, dout):
            return (
                dout  # upstream
                * self.x
            )

    text = str(sa.check_layer(Square(), np.ones((2, 3))))
    assert ": return (dout * self.x)\n" in text


def test_several_rows_with_one_reason_have_up_to_five_places():
    shared = [(__file__, 1), (__file__, 3), (__file__, 4)]
    rows = [
        row(name, verdict="wrong", why="halved", lines=(*shared, (__file__, own)))
        for name, own in (("a", 5), ("b", 6), ("c", 7))
    ]
    places = [line for line in str(report(*rows)).splitlines() if line.startswith("    test_rep")]
    assert [int(place.split(":")[1]) for place in places] == [1, 3, 4, 5, 6]


def test_a_cell_of_a_notebook_is_named_as_ipython_does(monkeypatch):
    class Compiler:
        def format_code_name(self, name):
            return ("Cell", "In[3]") if name == "/tmp/ipykernel_1/4706.py" else None

    shell = types.SimpleNamespace(compile=Compiler())
    module = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", module)
    lines = (("/tmp/ipykernel_1/4706.py", 5), (__file__, 1))
    text = str(report(row(verdict="wrong", why="halved", lines=lines)))
    assert "    Cell In[3], line 5: " in text
    assert "    test_report.py:1: " in text


def test_where_shapes_differ_there_is_no_difference():
    said = report(row(verdict="wrong", max_abs=np.inf, max_rel=np.inf, index=None))
    assert "inf" not in str(said)
    assert "inf" in str(report(row(verdict="wrong", max_abs=np.inf, max_rel=np.inf)))


def test_a_kink_is_marked_in_the_table():
    kink = row(findings=(found("kink"),))
    assert str(report(kink)).splitlines()[4].endswith("  match (kink)")
    assert ">match (kink)</td>" in report(kink)._repr_html_()
    assert report(kink).to_dict()["rows"][0]["verdict"] == "match"


def test_what_changes_from_call_to_call_is_said_once():
    class Adding(Affine):
        db = 0.0

        def backward(self, dout):
            self.dW = self.x.T @ dout
            self.db = self.db + dout.sum(axis=0)
            return dout @ self.W.T

    said = sa.check_layer(Adding(), np.ones((4, 3)))
    assert len(said.failures) == 1
    assert has(said.faults, "accumulates")
    what = SENTENCES["accumulates"][:40]
    assert str(said).count(what) == 1
    assert said._repr_html_().count(what) == 1


# -------------------- right or not --------------------


@pytest.mark.parametrize(
    ("verdict", "ok"),
    [
        ("exact", True),
        ("match", True),
        ("idealised", True),
        ("approximate", True),
        ("wrong", False),
        ("missing", False),
    ],
)
def test_ok(verdict, ok):
    said = report(row(), row("b", (2,), verdict))
    assert said.ok is ok
    assert bool(said) is ok
    if ok:
        said.raise_if_wrong()
        said.raise_if_wrong(complete=True)
    else:
        with pytest.raises(AssertionError) as caught:
            said.raise_if_wrong()
        assert str(said) in str(caught.value)


def test_a_failure_is_a_failure_without_a_row():
    assert not report(row(), failures=("the list holds the old array",)).ok
    assert report(row(), notes=("backward writes into its cache",)).ok


def test_complete_fails_on_what_is_not_checked():
    said = report(row(), unchecked=("mask",))
    said.raise_if_wrong()
    with pytest.raises(AssertionError, match="mask is not checked"):
        said.raise_if_wrong(complete=True)


def test_what_is_not_checked_stands_in_the_title_of_a_wrong_layer_too():
    title = str(report(row(verdict="wrong"), unchecked=("mask",))).splitlines()[0]
    assert title == "Affine: the gradient of W is wrong; mask is not checked"


def test_reports_are_values(wrong):
    with pytest.raises(dataclasses.FrozenInstanceError):
        wrong.rows = ()
    with pytest.raises(dataclasses.FrozenInstanceError):
        wrong.rows[0].verdict = "match"
    assert len({wrong, dataclasses.replace(wrong)}) == 1
    one = pair("W", np.ones(2), np.zeros(2))
    assert one == pair("W", np.zeros(2), np.zeros(2))
    assert report(one) != report(row())


# -------------------- data --------------------


def test_the_data_go_through_json(wrong):
    for said in (wrong, report(row(max_abs=NAN, max_rel=float("inf"), index=None), notes=("a",))):
        data = said.to_dict()
        assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data["rows"][0] == {
        "name": "W",
        "shape": [3, 2],
        "largest": 1.5,
        "max_diff": None,
        "relative_error": None,
        "at": None,
        "verdict": "match",
        "rule": None,
        "why": "",
        "findings": [],
        "lines": [],
    }
    assert data["ok"] is True
    last = wrong.to_dict()["rows"][-1]
    assert (last["name"], last["verdict"], last["rule"]) == ("b", "wrong", "sum") or last[
        "rule"
    ] == "factor"
    assert [line["pass"] for line in last["lines"]] == ["forward", "backward"]
    assert last["lines"][1]["code"] == "self.db = np.mean(dout, axis=0)  # the mistake"
    assert linecache.getline(__file__, last["lines"][1]["line"]).strip() == last["lines"][1]["code"]


def test_the_data_have_a_schema_and_the_tolerances_as_numbers(wrong):
    data = wrong.to_dict()
    assert data["schema"] == 1
    assert data["title"] == "Affine: 1 of 3 gradients is wrong (b)"
    assert data["tolerances"] == {
        "dtype": "float64",
        "match": 1e-10,
        "approximate": 1e-6,
        "rtol": None,
        "atol": None,
    }
    assert report(row()).to_dict()["tolerances"] is None


def test_the_data_name_files_from_the_current_folder(wrong, monkeypatch, tmp_path):
    def file():
        return wrong.to_dict()["rows"][-1]["lines"][0]["file"]

    monkeypatch.chdir(Path(__file__).parents[1])
    assert file() == str(Path("gradcheck", "test_report.py"))
    monkeypatch.chdir(tmp_path)
    assert file() == __file__


def test_a_line_of_a_helper_is_of_the_pass_that_calls_it():
    def activation(x):
        return np.tanh(x)

    class Tanh:
        def forward(self, x):
            self.y = activation(x)
            return self.y

        def backward(self, dout):
            return 1.7 * dout * (1 - self.y**2)

    said = sa.check_layer(Tanh(), np.random.default_rng(0).standard_normal((4, 3))).to_dict()
    lines = [(line["code"], line["pass"]) for line in said["rows"][0]["lines"]]
    assert lines == [
        ("return np.tanh(x)", "forward"),
        ("return 1.7 * dout * (1 - self.y**2)", "backward"),
    ]


# -------------------- HTML --------------------


class Reader(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.cells, self.balanced = [], [], True
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag != "br":
            self.open.append(tag)
            self.cells += [""] if tag in ("td", "th", "li", "code", "p") else []

    def handle_endtag(self, tag):
        self.balanced &= self.open.pop() == tag

    def handle_data(self, data):
        if self.cells:
            self.cells[-1] += data


def test_the_html_is_well_formed_and_escaped(wrong):
    bad = row("<b>&W", why="x < y & z > 0", verdict="wrong", lines=((__file__, 1),))
    for said in (wrong, report(bad, notes=("<script>alert(1)</script>",)), report()):
        text = said._repr_html_()
        reader = Reader(text)
        assert reader.balanced
        assert reader.open == []
        assert "<script>" not in text
    reader = Reader(report(bad)._repr_html_())
    assert "<b>&W" in reader.cells
    assert "<b>&W: x < y & z > 0" in reader.cells
    assert any(cell.startswith("test_report.py:1: ") for cell in reader.cells)
    assert any("np.mean(dout" in cell for cell in Reader(wrong._repr_html_()).cells)


def test_the_html_has_failures_in_bold_and_reasons_beside_the_table(wrong):
    text = wrong._repr_html_()
    assert text.count('class="is-wrong"') == text.count("wrong</td>") == 1
    assert ".is-wrong," in text.partition("</style>")[0]
    assert "((" not in text
    assert "compared with autograd (float64; match: within 1e-10)" in text
    table = text[text.index("<table>") : text.index("</table>")]
    assert "np.mean" not in table
    assert "np.mean" in text


# -------------------- pictures --------------------

G = np.random.default_rng(0).standard_normal((4, 3))


def colour_limits(axes):
    return [image.get_clim() for ax in axes for image in ax.images]


def test_the_picture_has_three_columns_on_common_scales():
    figure = report(pair("W", 3 * G, G), pair("b", G[0] + 1, G[0]), pair("c", -G, G)).plot()
    axes = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    assert len(axes) == 9
    assert [ax.get_title() for ax in axes[:3]] == ["your gradient", "the true one", "difference"]
    ours, theirs, apart = colour_limits(axes[:3])
    assert ours == theirs == apart == (-3 * abs(G).max(), 3 * abs(G).max())
    assert colour_limits(axes[6:]) == [(-2 * abs(G).max(), 2 * abs(G).max())] * 3
    assert np.array_equal(axes[0].images[0].get_array(), 3 * G)
    assert np.allclose(axes[2].images[0].get_array(), 2 * G)
    assert axes[3].get_ylim() == axes[4].get_ylim() == axes[5].get_ylim()
    assert [bar.get_height() for bar in axes[5].patches] == pytest.approx([1, 1, 1])
    assert axes[0].get_ylabel() == "W\n(4,3)\nwrong"
    title = "Affine: 3 of 3 gradients are wrong (W, b, c), compared with autograd"
    assert figure.get_suptitle() == title


def test_rounding_is_not_drawn_as_a_difference():
    figure = report(pair("W", G * (1 + 1e-15), G, "match")).plot()
    limits = colour_limits(figure.axes[:3])
    assert limits[2] == limits[0]


def test_the_entry_that_is_furthest_off_is_framed():
    off = G.copy()
    off[2, 1] += 1
    figure = report(pair("W", off, G, index=(2, 1), max_abs=1.0)).plot()
    (frame,) = figure.axes[2].lines
    assert (frame.get_xdata()[0], frame.get_ydata()[0]) == (1, 2)
    assert not report(pair("W", off, G, "match", index=(2, 1))).plot().axes[2].lines
    cube = np.zeros((2, 3, 4))
    figure = report(pair("W", cube + 1, cube, index=(1, 2, 3), max_abs=1.0)).plot()
    assert [line.get_xydata().tolist() for line in figure.axes[2].lines] == [
        [[7, 2]]
    ]  # in the second tile


def test_arrays_of_more_than_two_axes_are_tiles():
    g = np.arange(2.0 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    axes = report(pair("K", g, g, "match")).plot().axes
    drawn = axes[0].images[0].get_array()
    assert drawn.shape == (2 * 4, 3 * 5)
    assert np.array_equal(drawn[4:, 5:10], g[1, 1])
    assert axes[0].get_xlabel() == "tiles of the last two axes"
    large = np.ones((2, 100, 100))
    (image,) = report(pair("K", large, large, "match")).plot().axes[0].images
    assert image.get_array().shape[0] == 2  # too many columns: flat


def test_the_frame_is_seen_on_dark_colours():
    figure = report(pair("W", G + np.eye(4, 3), G, index=(0, 0), max_abs=1.0)).plot()
    (frame,) = figure.axes[2].lines
    assert len(frame.get_path_effects()) == 1


@pytest.mark.parametrize("shape", [(), (1,), (5,), (500,), (1, 1), (300, 200), (2, 3, 4, 5)])
def test_gradients_of_any_shape_are_drawn(shape, tmp_path):
    g = np.random.default_rng(1).standard_normal(shape)
    figure = report(pair("W", g * 2, g, index=(0,) * len(shape))).plot()
    figure.savefig(tmp_path / "a.png", dpi=30)
    assert len([ax for ax in figure.axes if ax.get_label() != "<colorbar>"]) == 3


def test_what_is_not_there_is_said():
    def texts(ours, theirs):
        axes = report(pair("W", ours, theirs)).plot().axes
        return [ax.texts[0].get_text() if ax.texts else "" for ax in axes[:3]]

    assert texts(None, G) == ["no gradient", "", "none"]
    assert texts(G.T, G) == ["", "", "shapes differ"]
    assert texts(G, None) == ["", "known along random\ndirections only", "none"]
    with pytest.raises(ValueError, match="no gradient to draw"):
        report(row()).plot()


@pytest.mark.parametrize("shape", [(4,), (4, 3), (300,)])
def test_what_is_not_finite_is_drawn(shape, tmp_path):
    bad = np.ones(shape)
    bad.flat[:2] = NAN, np.inf
    figure = report(pair("W", bad, np.ones(shape), index=(0,) * len(shape), max_abs=NAN)).plot()
    figure.savefig(tmp_path / "a.png", dpi=30)
    assert figure.axes[0].get_xlabel().endswith("2 entries are not finite")
    assert figure.axes[1].get_xlabel() == ""
    if len(shape) == 1:
        assert figure.axes[0].lines[-2].get_xdata().tolist() == [0, 1]


@given(st.integers(1, 500), st.integers(1, 500), st.integers(0), st.sampled_from([-9.0, 9.0]))
def test_a_single_entry_is_seen_in_a_large_picture(rows, columns, place, value):
    picture = np.full((rows, columns), 0.5)
    picture.flat[place % picture.size] = value
    small = coarse(picture)
    assert max(small.shape) <= CELLS
    assert np.sum(small == value) == 1
    assert rows > CELLS or small.shape[0] == rows
    assert columns > CELLS or small.shape[1] == columns


def test_a_nan_is_seen_in_a_large_picture():
    picture = np.zeros((1000, 3))
    picture[517, 2] = NAN
    assert np.isnan(coarse(picture)).sum() == 1


def test_matplotlib_is_imported_for_pictures_only():
    code = "import sys, spiral_autograd.gradcheck.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_wrong_row_is_red_and_bears_its_reason(wrong):
    figure = wrong.plot()
    axes = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    (number,) = (i for i, row in enumerate(wrong.rows) if row.verdict == "wrong")
    for i, row in enumerate(wrong.rows):
        first, _, last = axes[3 * i : 3 * i + 3]
        said = [text.get_text() for text in first.texts]
        assert said == ([f"{row.name}: {row.why}"] if i == number else [])
        red = {to_hex(spine.get_edgecolor()).upper() for spine in last.spines.values()}
        assert red == ({RED} if i == number else {"#000000"})
    bars = [to_hex(bar.get_facecolor()).upper() for bar in axes[3 * number + 2].patches]
    assert set(bars) == {RED}


def test_the_sign_of_the_difference_is_said():
    figure = report(pair("W", 2 * G, G), pair("b", G[0], G[0], "exact")).plot()
    bars = [ax.get_ylabel() for ax in figure.axes if ax.get_label() == "<colorbar>"]
    assert bars == ["", "", "yours - autograd"]
    axes = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    assert [ax.get_ylabel() for ax in axes[4:]] == ["", "yours - autograd"]
    assert axes[5].get_xlabel() == "all zero"


def test_of_many_rows_only_the_wrong_ones_are_drawn(tmp_path):
    rows = [pair(f"W{i}", G * (1 + (i == 7)), G, "wrong" if i == 7 else "match") for i in range(26)]
    figure = report(*rows).plot()
    labels = [ax.get_ylabel().split("\n")[0] for ax in figure.axes if "(4,3)" in ax.get_ylabel()]
    assert labels == ["W7"]
    assert figure.get_suptitle().endswith("\ndrawn: 1 of 26 rows")
    for verdict in ("wrong", "match"):
        figure = report(*(pair(f"W{i}", G, G, verdict) for i in range(26))).plot()
        assert figure.get_suptitle().endswith("\ndrawn: 6 of 26 rows")
        assert figure.get_size_inches()[1] < 20
    figure = report(*rows[:6]).plot()
    assert "drawn" not in figure.get_suptitle()


def test_what_is_zero_up_to_rounding_is_drawn_as_zero():
    zero = pair("b", 1e-17 * G, np.zeros_like(G), "match", max_abs=1e-17, max_rel=0.0)
    assert colour_limits(report(zero).plot().axes[:3]) == [(-1.0, 1.0)] * 3


def test_a_name_is_no_mathematics(tmp_path):
    report(pair("W$_{", G, 2 * G)).plot().savefig(tmp_path / "a.png", dpi=30)


def test_many_reports_are_drawn_without_pyplot(wrong, recwarn):
    with plt.rc_context({"figure.max_open_warning": 1}):
        for _ in range(2):
            wrong.plot()
    assert plt.get_fignums() == []
    assert not recwarn.list


def test_the_picture_of_a_check(wrong):
    figure = wrong.plot()
    assert isinstance(figure, plt.Figure)
    assert len([ax for ax in figure.axes if ax.get_label() != "<colorbar>"]) == 9
