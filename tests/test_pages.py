"""The pages: whole, of one file, escaped; and in a browser, where there is one."""

import base64
import html
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest

import spiral_autograd as sa
from spiral_autograd import plotting
from spiral_autograd.__main__ import main

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
EMPTY = ("meta", "link", "input", "br")
LAYER = '''import numpy as np


class Evil:
    """</code></pre><script>alert(1)</script>"""

    def __init__(self, W, b):
        self.W, self.b = W, b

    def forward(self, x):
        self.x = x
        return np.dot(x, self.W) + self.b

    def backward(self, dout):
        self.dW = np.dot(self.x.T, dout)
        self.db = np.mean(dout, axis=0)  # <b>&amp;
        return np.dot(dout, self.W.T)
'''


class Page(HTMLParser):
    """What stands in a page."""

    def __init__(self, text):
        super().__init__()
        self.open, self.loaded, self.ids = [], [], set()
        self.scripts, self.headings, self.rows, self.lines = [], [], [], {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        assert not any(name.startswith("on") for name in attrs)
        self.loaded += [attrs[name] for name in ("src", "href", "srcset") if attrs.get(name)]
        assert attrs.get("id") not in self.ids or "id" not in attrs
        self.ids |= {attrs["id"]} if "id" in attrs else set()
        if tag not in EMPTY:
            self.open.append(tag)
        if tag == "li" and "line" in attrs.get("class", ""):
            self.lines[int(attrs["value"])] = line = {"text": "", "said": ""}
            line["classes"], line["links"] = attrs["class"].split(), attrs.get("data-links", "")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "li" in self.open and self.lines:
            line = self.lines[next(reversed(self.lines))]
            line["text" if "code" in self.open else "said"] += data
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        if self.open and self.open[-1] == "h1":
            self.headings.append(data)


def assert_loads_nothing(text):
    assert set(Page(text).loaded) <= {"data:,"}
    assert "@import" not in text
    assert not re.search(
        r"url\((?!`?#)|fetch\(|XMLHttpRequest|import\(", text.replace("url(#$", "url(#")
    )
    assert "default-src 'none'" in text


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """A report on a wrong layer and its page, and the page of a right one."""
    folder = tmp_path_factory.mktemp("report")
    path = folder / "<i>layer.py"
    path.write_text(LAYER)
    space = {}
    exec(compile(LAYER, path, "exec"), space)
    rng = np.random.default_rng(0)
    layer = space["Evil"](rng.normal(size=(4, 3)), rng.normal(size=3))
    wrong = sa.check_layer(layer, rng.normal(size=(5, 4)))
    right = sa.check_derivative(np.sin, np.cos, np.ones(2))
    pages = []
    for k, report in enumerate((wrong, right)):
        report.to_html(folder / f"{k}.html")
        pages.append(folder / f"{k}.html")
    assert sorted(os.listdir(folder)) == ["0.html", "1.html", "<i>layer.py"]  # no part of a file
    return wrong, *pages


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The page of a short run."""
    folder = tmp_path_factory.mktemp("run")
    arguments = ["--epochs", "20", "--no-plots", "--output", str(folder / "out")]
    assert main([*arguments, "--html", str(folder / "page")]) == 0
    assert os.listdir(folder / "page") == ["index.html"]
    return folder / "page" / "index.html"


# -------------------- a report --------------------


def test_a_report_page_is_one_file_that_loads_nothing(reports):
    for path in reports[1:]:
        assert_loads_nothing(path.read_text())
        assert Page(path.read_text()).scripts == []


def test_a_report_page_has_every_row_and_the_title(reports):
    wrong, path, _ = reports
    page = Page(path.read_text())
    assert page.headings == [str(wrong).splitlines()[0]]
    assert [row[0] for row in page.rows[1:]] == [row.name for row in wrong.rows]
    assert [row[-1] for row in page.rows[1:]] == [row.verdict for row in wrong.rows]


def test_the_reasons_stand_beside_the_blamed_lines(reports):
    wrong, path, right = reports
    page = Page(path.read_text())
    (row,) = [row for row in wrong.rows if row.why]
    assert [k for k, line in page.lines.items() if "blamed" in line["classes"]] == sorted(
        line for _, line in row.lines
    )
    assert "np.mean" in page.lines[row.lines[-1][1]]["text"]
    assert row.why in page.lines[row.lines[-1][1]]["said"]
    assert f"layer.py:{row.lines[-1][1]}" in page.lines[row.lines[0][1]]["said"]
    assert "\n".join(line["text"] for line in page.lines.values()) == "\n".join(
        text or " " for text in LAYER.splitlines()[3:]
    )
    assert "✓ right" in right.read_text()
    assert Page(right.read_text()).lines == {}


def test_what_is_right_but_for_a_small_constant_is_no_fault_on_the_page(tmp_path):
    path = tmp_path / "small.py"
    text = "import numpy as np\nf = lambda x: np.log(x + 1e-3)\ndf = lambda x: 1 / x\n"
    path.write_text(text)
    space = {}
    exec(compile(text, path, "exec"), space)
    report = sa.check_derivative(space["f"], space["df"], np.array([0.5, 2.0]))
    assert [row.verdict for row in report.rows] == ["idealised"]
    report.to_html(tmp_path / "report.html")
    lines = Page((tmp_path / "report.html").read_text()).lines
    assert [k for k, line in lines.items() if {"blamed", "mild"} <= {*line["classes"]}] == [2]
    assert "mild" not in "".join(lines[3]["classes"])
    figure = report.plot()
    assert not any(text.get_text() for ax in figure.axes for text in ax.texts)


def test_a_blamed_line_outside_of_a_function_is_shown_with_those_around_it(tmp_path):
    path = tmp_path / "at_the_end.py"
    text = "import numpy as np\n" + "\n" * 20 + "f = lambda x: x**2\ndf = lambda x: -2 * x\n"
    path.write_text(text)
    space = {}
    exec(compile(text, path, "exec"), space)
    report = sa.check_derivative(space["f"], space["df"], np.array([0.5, 2.0]))
    report.to_html(tmp_path / "report.html")
    lines = Page((tmp_path / "report.html").read_text()).lines
    assert list(lines) == list(range(min(line for _, line in report.rows[0].lines) - 5, 24))
    assert "blamed" in lines[23]["classes"]


def test_nothing_of_the_reader_s_becomes_html(reports):
    text = reports[1].read_text()
    assert "alert(1)" in text
    assert "<script" not in text
    assert "<i>" not in text


def test_a_page_is_written_whole_or_not_at_all(reports, tmp_path):
    with pytest.raises(OSError, match="no folder"):
        reports[0].to_html(tmp_path / "no folder" / "report.html")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        reports[0].to_html(tmp_path / "folder")
    assert os.listdir(tmp_path) == ["folder"]


# -------------------- a run --------------------


def test_the_page_of_a_run_is_one_small_file_that_loads_nothing(run):
    text = run.read_text()
    assert_loads_nothing(text)
    assert run.stat().st_size < 1.5e6
    rows = Page(text).rows
    assert [row[0] for row in rows] == ["name", "W1", "b1", "W2", "b2"] * 2


def test_the_pictures_are_the_regions_of_the_run(run):
    data = json.loads(Page(run.read_text()).scripts[0])
    first, last = data["frames"][0], data["frames"][-1]
    stream = np.random.RandomState(1984)
    x, t = sa.load_data(stream)
    params = sa.init_params(2, 10, 3, rng=stream)
    state = sa.fit(
        params,
        x,
        t,
        optimizer=sa.sgd(1.0),
        max_epoch=20,
        batch_size=30,
        eval_interval=10,
        rng=stream,
    )
    assert [frame["epoch"] for frame in data["frames"]] == list(range(21))
    assert [loss for _, loss in data["losses"]] == pytest.approx(list(state.loss_list), rel=1e-12)
    assert data["losses"][-1][0] == 20
    h = np.ptp(x, axis=0).max() + 0.2
    for frame, trained in ((first, params), (last, state.params)):
        classes = plotting.decision_grid(trained, x, h / 150)[2]
        packed = np.frombuffer(base64.b64decode(frame["regions"]), np.uint8)
        cells = (packed[:, None] >> [0, 2, 4, 6] & 3).ravel()[: classes.size]
        np.testing.assert_array_equal(cells.reshape(frame["size"])[::-1], classes)
        assert frame["loss"] == pytest.approx(sa.loss(trained, x, t), rel=1e-12)
        assert frame["accuracy"] == sa.accuracy(trained, x, t)


def test_lines_that_make_the_same_numbers_are_linked(run):
    lines = Page(run.read_text()).lines
    by_hand = {k: line for k, line in lines.items() if k > 100}  # far down in manual.py
    linked = {}
    for line in lines.values():
        name = line["text"].partition(" = ")[0].strip()
        if line["links"] and line not in by_hand.values():
            shared = set(line["links"].split())
            linked[name] = {
                other["text"].strip()
                for other in by_hand.values()
                if shared & set(other["links"].split())
            }
    assert "dh = sigmoid_backward(da, activation)" in linked["daffine"]
    assert "return g * y * (1.0 - y)" in linked["daffine"]
    assert "return g * (y - t) / len(t)" in linked["daffine_2"]
    assert "h, affine1 = affine(x, W1, b1)" in linked["affine"]
    assert "above_least = scores - np.max(scores, axis=1, keepdims=True)" in linked["shifted"]
    for name in ("dW2", "db2"):
        assert "da, dW2, db2 = affine_backward(dscores, affine2)" in linked[name]
        assert "_, dW1, db1 = affine_backward(dh, affine1)" not in linked[name]
    assert "total" not in linked  # what has no counterpart


def test_a_resumed_run_has_the_pictures_from_before(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["--epochs", "4", "--no-plots", "--html", "page"]
    main([*options, "--output", "whole"])
    whole = json.loads(Page((tmp_path / "page/index.html").read_text()).scripts[0])

    class Stop(list):
        def append(self, frame):
            super().append(frame)
            if len(self) == 4:
                raise KeyboardInterrupt

    from spiral_autograd import main_job

    class Stopped(main_job._Job):
        def __post_init__(self):
            super().__post_init__()
            self.frames = Stop(self.frames)

    with monkeypatch.context() as patch:
        patch.setattr(main_job, "_Job", Stopped)
        patch.setattr(
            main_job,
            "save",
            lambda kept, path: sa.save({**kept, "frames": list(kept["frames"])}, path),
        )
        assert main(options) == 130
    assert main([*options, "--resume"]) == 0
    resumed = json.loads(Page((tmp_path / "page/index.html").read_text()).scripts[0])
    assert [frame["epoch"] for frame in resumed["frames"]] == [0, 1, 2, 3, 4]
    assert resumed == whole


def test_a_folder_that_cannot_be_made_is_said_before_the_training(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit):
        main(["--html", str(tmp_path / "file"), "--output", str(tmp_path / "out")])
    assert "argument --html: cannot make the folder" in capsys.readouterr().err


# -------------------- in a browser --------------------

# Both widths at once, each in a frame; what is seen there is written into the outer page.
HARNESS = """<!DOCTYPE html><title>harness</title>{frames}<pre id="seen"></pre><script>
const sum = (canvas) => [...canvas.toDataURL()].reduce(
  (total, c) => (31 * total + c.charCodeAt(0)) % 1000003, 0);
const look = (frame) => {{
  const page = frame.contentDocument, seen = {{
    width: page.documentElement.clientWidth, wide: page.documentElement.scrollWidth,
    paper: frame.contentWindow.getComputedStyle(page.body).backgroundColor,
    small: [...page.querySelectorAll("p, td, li, text, code")].map(
      (e) => parseFloat(frame.contentWindow.getComputedStyle(e).fontSize)
    ).filter((size) => size < 12).length,
  }};
  const slider = page.getElementById("epoch");
  if (!slider) return seen;
  const at = (value) => {{
    slider.value = value;
    slider.dispatchEvent(new Event("input"));
    return [sum(page.getElementById("regions")), page.getElementById("now").textContent,
      page.getElementById("cursor").getAttribute("transform")];
  }};
  seen.last = at(slider.max); seen.first = at(0); seen.again = at(slider.max);
  const linked = [...page.querySelectorAll("[data-links]")];
  const line = linked.find((line) => line.textContent.includes("daffine = "));
  line.focus();
  seen.linked = [...page.querySelectorAll(".linked code")].map((e) => e.textContent.trim());
  line.dispatchEvent(new KeyboardEvent("keydown", {{ key: "Enter", bubbles: true }}));
  seen.focused = page.activeElement.querySelector("code").textContent.trim();
  seen.marks = page.querySelectorAll("svg .point").length;
  seen.graph = [...page.querySelectorAll(".graph text")].map((e) => e.textContent.trim());
  return seen;
}};
onload = () => {{ document.getElementById("seen").textContent =
  JSON.stringify([...document.querySelectorAll("iframe")].map(look)); }};
</script>"""


def seen_in_browser(folder, pages):
    """What is seen of each page, 400 and 1400 pixels wide, in the light and in the dark."""
    frames = [
        f'<iframe style="width:{width}px;height:900px;color-scheme:{scheme}" '
        f'srcdoc="{html.escape(page.read_text())}"></iframe>'
        for page in pages
        for scheme in ("light", "dark")
        for width in (400, 1400)
    ]
    (folder / "harness.html").write_text(HARNESS.format(frames="".join(frames)))
    done = subprocess.run(
        [
            *(BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}"),
            *("--window-size=1500,1000", "--dump-dom", (folder / "harness.html").as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ":CONSOLE" not in done.stderr, done.stderr
    (said,) = re.findall('<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    return json.loads(html.unescape(said))


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")
def test_the_pages_work_in_a_browser(run, reports, tmp_path):
    seen = seen_in_browser(tmp_path, [run, reports[1]])
    for page, width in zip(seen, (400, 1400) * 4, strict=True):
        assert page["wide"] <= page["width"] <= width  # nothing but boxes scrolls sideways
        assert page["small"] == 0
    papers = [page["paper"] for page in seen]
    assert papers == [*["rgb(255, 255, 255)"] * 2, *["rgb(20, 23, 28)"] * 2] * 2
    for page in seen[:4]:
        assert page["first"][0] != page["last"][0]
        assert page["again"] == page["last"]
        assert page["first"][1].startswith("epoch 0 of 20: loss 1.1")
        assert page["last"][1].startswith("epoch 20 of 20: ")
        assert page["first"][2] != page["last"][2]
        assert "dh = sigmoid_backward(da, activation)" in page["linked"]
        assert page["focused"] in page["linked"]
        assert page["marks"] == 300 + 3
        assert {"W1 (2, 10)", "dW1", "sigmoid", "hidden (30, 10)"} <= set(page["graph"])
    assert seen[0]["last"][0] != seen[2]["last"][0]  # the regions are dark, too
