"""docs/derived.md: its listing is the program's text, and both of its programs run."""

import os
import pathlib
import re

import autograd.numpy as anp
import numpy as np
import pytest
from witness import departure

import spiral_autograd as sa
from spiral_autograd.recording import record

DOC = pathlib.Path(__file__).parents[2] / "docs" / "derived.md"
BLOCK = r"(<!-- {} -->\n```python\n)(.*?)(```\n)"


@pytest.fixture(scope="module")
def batch():
    x, t = sa.load_data(rng=1984)
    return sa.init_params(2, 10, 3, rng=0, scale=0.5), x[::10], t[::10]


def block(name):
    (found,) = re.findall(BLOCK.format(name), DOC.read_text(encoding="utf-8"), re.DOTALL)
    return found[1]


def test_the_listing_is_the_programs_text(batch):
    source = sa.derive(sa.loss, *batch).source
    if os.environ.get("WRITE_DOCS"):
        text = DOC.read_text(encoding="utf-8")
        new = re.sub(
            BLOCK.format("derived"),
            lambda found: found[1] + source + found[3],
            text,
            flags=re.DOTALL,
        )
        DOC.write_text(new, encoding="utf-8")
    assert block("derived") == source, (
        "WRITE_DOCS=1 python -m pytest tests/derive/test_derived_doc.py"
    )


@pytest.mark.parametrize("name", ["derived", "handwritten"])
def test_a_program_of_the_page_gives_the_handwritten_gradient(name, batch):
    exec(block(name), namespace := {})
    value, grads = namespace["value_and_grad"](*batch)
    expected_value, expected = sa.manual.value_and_grad(*batch)
    assert departure(value, expected_value) < 1e-14
    assert list(grads) == list(expected)
    for key in grads:
        assert departure(grads[key], expected[key]) < 1e-13, key


def test_both_programs_have_the_same_backward_values():
    def names(source):
        backward = source[source.index("# backward") :]
        return set(re.findall(r"^    (\w+) = ", backward, re.MULTILINE))

    derived = names(block("derived"))
    assert derived - {"softmax"} == names(block("handwritten"))
    assert len(derived) == 8


def test_both_leave_the_loss_by_the_same_line():
    assert all("daffine_2 = (softmax - t) / 30" in block(n) for n in ("derived", "handwritten"))


def test_the_links_of_the_page_lead_somewhere():
    text = DOC.read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}
    assert set(re.findall(r"\]\(#([\w-]+)\)", text)) == anchors
    for file, anchor in re.findall(r"\]\((\w+\.md)#?([\w-]*)\)", text):
        other = (DOC.parent / file).read_text(encoding="utf-8")
        assert not anchor or f"(#{anchor})" in other


def test_the_listing_is_what_the_command_line_prints(capsys):
    from spiral_autograd.__main__ import main

    assert main(["derive"]) in (0, None)
    printed = capsys.readouterr().out
    strip = re.compile(r" *#.*$", re.MULTILINE)
    assert strip.sub("", printed) == strip.sub("", block("derived"))


def test_the_numbers_in_the_page(batch, monkeypatch):
    def shifted(scores):
        return scores - anp.max(scores, axis=-1, keepdims=True)

    assert len(batch[1]) == 30
    calls = len(record(sa.loss, *batch).calls)
    monkeypatch.setattr(sa.network, "_shifted", shifted)
    assert len(record(sa.loss, *batch).calls) == calls + 11
    with np.errstate(over="ignore"):
        assert np.isfinite(np.exp(709.0))
        assert np.isinf(np.exp(710.0))
