"""Every kind of finding has a sentence, every sentence is used, and all of them can be read."""

import ast
import inspect
import string
from pathlib import Path

import numpy as np
import pytest

from spiral_autograd import gradcheck
from spiral_autograd.gradcheck.finding import RULES, found, together
from spiral_autograd.gradcheck.words import SENTENCES, sentence, sentences
from spiral_autograd.gradcheck.words_of_mistakes import MISTAKES

X, Y = found("named", name="x"), found("named", name="y")
BATCH = found("batch_size")
SIZES = (
    found("axis", axis=1, of=X),
    found("entries", of=X),
    found("axes", lengths=[2], axes=[0], of=X),
)
MARKS = (
    found("where", of=X, sign=">", bound=0.0),
    found("slices", axis=1, ndim=2, hit=[2], length=3),
    found("slices", axis=1, ndim=3, hit=[1, 2], length=4),
    found("labels"),
)
FLOW = found("flow", result=Y, via=None, argument=X, run=None)

MEANS = [found(kind, n=5.0, sign=1, what=BATCH) for kind in ("mean_missing", "averaged_over")]
LESS = found("one_less", times=1.25, n=5.0, less=4.0, what=BATCH)
RATIO = found("ratio", times=1.25, n=5.0, what=BATCH, m=4.0, other=SIZES[0])

# What each field may be: of every name all that changes how a sentence is built.
FIELDS = {
    **dict.fromkeys(("of", "operand", "result", "due", "v", "output"), (X, found("array"))),
    **dict.fromkeys(("other", "argument"), (Y, found("expression", text="np.exp(x)"))),
    **dict.fromkeys(("name", "holder", "label", "lacking", "loss", "wanted", "last"), ("W",)),
    **dict.fromkeys(("function", "variable", "attribute", "owner", "key"), ("go",)),
    **dict.fromkeys(("keys", "places", "given", "held"), (["_a"], ["_a", "b"])),
    **dict.fromkeys(("names", "others"), (["W"], ["W", "b"])),
    **dict.fromkeys(("late", "zeros", "lost", "right", "own", "lacks", "more"), (True, False)),
    **dict.fromkeys(("largest", "overwritten", "is_set", "returned"), (True, False)),
    **dict.fromkeys(("is_sure", "batch"), (True, False)),
    **dict.fromkeys(("apart", "match", "bound", "ours", "theirs", "factor", "rate"), (0.25, 2.0)),
    **dict.fromkeys(("times", "constant"), (2.0, -0.5)),
    **dict.fromkeys(("n", "m", "less"), (5.0,)),
    **dict.fromkeys(("count", "wrong", "differing", "number", "axis", "ndim"), (1, 2)),
    **dict.fromkeys(("length", "shift"), (3,)),
    **dict.fromkeys(("sign",), (1, -1)),
    **dict.fromkeys(("hit", "lengths"), ([0], [1, 2], list(range(9)))),
    **dict.fromkeys(("axes", "order", "offsets", "index"), ((0, 1),)),
    **dict.fromkeys(("shape", "due_axes"), ((3, 4), (3,))),
    **dict.fromkeys(("error", "place", "text", "who", "what", "kind", "reference"), ("it",)),
    **dict.fromkeys(("method", "than", "dtype", "precision", "term", "reset"), ("forward",)),
    "also": (BATCH,),
    "update": (None, (3, 4), (3, 3)),
    "values": ([found("value_is", name="x", value=found("is_symmetric"))],),
    "value": (found("has_one_size"),),
    "why": ([], [found("wrong_sign")]),
    "change": (found("averaged", axes=1), found("summed", axes=1), found("summed", axes=(0, 1))),
    "flow": (FLOW, found("flow_to", argument=X)),
    "by": (None, X),
    "via": (None, Y),
    "run": (None, (1, 3)),
}
# Where one name means something else in one kind: these come before those above.
OF_KIND = {
    "truncated": {"steps": (1, 4)},
    **{kind: {"mark": (found("labels"),)} for kind in ("term_in_part", "constant_in_part")},
    "shape": {"ours": ((3, 4),), "theirs": ((3, 4), (2,))},
    "update_takes": {"ours": ((1, 3),), "theirs": ((3,),)},
    "is_number": {"value": (0.5,)},
    "is_constant": {"value": (0.5,)},
    "hidden": {
        "why": ([found("wrong_sign")],),
        "values": ([], [found("value_is", name="x", value=found("is_symmetric"))]),
    },
    "own_raised": {"why": ([], ["it calls loss_layer.backward with 1"])},
    "other_than_layers": {"why": ([], [found("wrong_sign"), found("transposed")])},
    "unchecked": {"why": (found("integers", name="x"),)},
    "not_carried": {"values": ([X], [X, Y])},
    "where": {"sign": (">",)},
    "only": {"flow": (FLOW,)},
    "misgiven": {"given": ([], ["layers[0]"]), "factor": (None, 2.0)},
    "loss_misgiven": {"given": ([], ["1", "an array"])},
    "axis": {"axis": (1,)},
    "ratio": {"what": (BATCH,)},
    "times": {"also": (None, BATCH)},
    "of_loss": {"factor": MEANS},
    "mean_of_cost": {"factor": MEANS},
    "combined": {"activation": ("sigmoid",)},
    "clipped": {"bound": (None, 5.0)},
    "clipped_norm": {"norm": (5.0,)},
    "either": {"what": (BATCH,), "other": SIZES[:1]},
    "either_way": {"one": (LESS,), "other": (RATIO,)},
    "term_in_part": {"mark": MARKS},
    "constant_in_part": {"mark": MARKS},
    "upstream_ignored": {"name": (None, "dout")},
    "upstream_twice": {"name": (None, "dout")},
    "upstream_not_linear": {"name": (None, "dout"), "decides": (True, False)},
    "should_keep": {"due_axes": (None, 0)},
    "mean_missing": {"what": (BATCH, *SIZES)},
    "averaged_over": {"what": (BATCH, *SIZES)},
    "blocks": {"order": ((1, 0), (1, 2, 0))},
    "part": {"mark": MARKS},
    "no_entry": {"others": ([], ["bias_"])},
    "writes_cache": {"names": ([], ["cache[0]"])},
    "by_its_change": {"n": (1, 5), "adds": (False, True)},
    "called_with": {
        "arguments": ([("input", "x")], [("left", "y"), ("upstream", 0)], [("upstream", None)]),
        "n": (1, 2),
        "times": (True, False),
    },
    "of_some_outputs": {"outputs": ([1], [0, 2])},
    "each_loss": {"share": (1.0, 0.2)},
    "decays": {"share": (0.1,)},
    "accumulating": {"reset": ("", "zero_grad")},
    "value_gradients": {"other": ("mark", "value")},
    "right_with": {
        "statement": ("db = dout.sum(axis=0)", ""),
        "others": ([], ["dW = x.T @ dout"]),
        "derivatives": ([], [("tanh", "1 - y ** 2")]),
    },
    "no_pattern": {"differing": (None, 3), "of": (12,), "index": ((0, 1),)},
    "upstream": {"output": (None, 1), "name": (None, "dout")},
    "other_sum": {"change": (found("summed", axes=1),), "due_axes": (None, 0), "due": ((4,),)},
    "slices": {"axis": (0, 1), "ndim": (2,)},
    "at": {"places": ([(0, 1)],)},
    "constant_factor": {"text": ("0.5 * x",)},
}
PARTS = """batch_size axis entries axes either output at where slices labels extreme named
    expression result array upstream flow flow_to upstream_of gradient_of"""
# of these no more is known, or the finding itself says which rule it is
NO_RULE = "no_pattern right_with not_finite only"


def needed(kind):
    """Return the names of the fields that the sentence of a kind is made of."""
    made = SENTENCES[kind]
    if callable(made):
        return list(inspect.signature(made).parameters)
    names = [name for _, name, _, _ in string.Formatter().parse(made) if name]
    return list(dict.fromkeys(names))


def variants(kind):
    """Yield findings of a kind: for each field all that it may be, the others as they are first."""
    choices = {name: OF_KIND.get(kind, {}).get(name) or FIELDS[name] for name in needed(kind)}
    first = {name: some[0] for name, some in choices.items()}
    yield found(kind, **first)
    for name, some in choices.items():
        yield from (found(kind, **{**first, name: value}) for value in some[1:])


def test_a_kind_has_one_sentence():
    assert {kind: SENTENCES[kind] for kind in MISTAKES} == MISTAKES


@pytest.mark.parametrize("kind", SENTENCES)
def test_every_kind_has_a_sentence_that_can_be_read(kind):
    for finding in variants(kind):
        text = sentence(finding)
        said = text.replace("written (None)", "")  # None is what backward returns there
        assert text
        assert text == text.strip()
        assert not [bad for bad in ("{", "}", "None", "  ", "Finding", "( ", " ,") if bad in said]


# -------------------- the kinds that are made --------------------

HERE = Path(gradcheck.__file__).parent
WORDS = {"words.py", "words_of_mistakes.py", "finding.py"}


def made_in_the_package():
    """Return the kinds of `found("kind", ...)`, with their fields, and all other short texts."""
    calls, texts = [], set()
    for path in HERE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))) if path.name not in WORDS else ():
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.add(node.value)
            is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            if is_call and node.func.id == "found" and isinstance(node.args[0], ast.Constant):
                fields = None
                if all(keyword.arg for keyword in node.keywords):  # no **fields
                    fields = {keyword.arg for keyword in node.keywords} - {"rule"}
                calls.append((f"{path.name}:{node.lineno}", node.args[0].value, fields))
    return calls, texts


CALLS, TEXTS = made_in_the_package()


def test_each_finding_that_is_made_has_a_sentence_of_just_its_fields():
    assert len(CALLS) > 80
    for place, kind, fields in CALLS:
        assert kind in SENTENCES, place
        made = SENTENCES[kind]
        optional = set()
        if callable(made):
            parameters = inspect.signature(made).parameters.values()
            optional = {p.name for p in parameters if p.default is not p.empty}
        if fields is not None:
            later = {"zeros"} if place.startswith("elsewhere.py") else set()  # by arrays.unwritten
            assert set(needed(kind)) - optional <= fields | later, place
        if fields is not None and callable(made):  # a template may leave a field unsaid
            assert fields <= set(needed(kind)), place


def test_each_sentence_is_used():
    assert set(SENTENCES) <= TEXTS
    assert set(RULES) <= set(SENTENCES)


def test_what_stands_in_a_row_of_mistakes_has_a_rule():
    assert set(MISTAKES) - set(RULES) == {*PARTS.split(), *NO_RULE.split()}
    rules = "factor layout sum upstream value term state unwritten part kink"
    assert set(RULES.values()) == set(rules.split())
    assert found("only", rule="sum").rule == "sum"
    assert found("no_pattern").rule is None


def test_findings_of_a_row_come_together():
    shape = found("shape", ours=(3, 4), theirs=(4,), update=None)
    summed = found("not_summed", axes=0, batch=True, shape=(3, 4), due=(4,))
    nothing, zeros = found("no_gradient"), found("nothing_returned")
    assert together((shape,), summed) == (summed,)
    assert together((nothing,), zeros) == (zeros,)
    both = together((shape,), found("all_zeros"))
    assert sentences(both) == f"{sentence(shape)}; {sentence(found('all_zeros'))}"


# -------------------- what is read most often, word for word --------------------


EXACT = [
    (found("wrong_sign"), "has the wrong sign: it is -1 times the true one"),
    (found("times", times=0.5, also=None), "is half of what it should be"),
    (found("times", times=3.0, also=None), "is 3 times what it should be"),
    (found("times", times=-0.25, also=None), "is -0.25 times what it should be"),
    (found("times", times=0.36, also=None), "is 0.36 times what it should be"),
    (found("times", times=2 / 7, also=None), "is 2/7 times what it should be"),
    (found("times", times=np.pi, also=None), "is 3.14159 times what it should be"),
    (found("times", times=31 / 32, also=None), "is 31/32 times what it should be"),
    (found("times", times=1 / 300, also=None), "is 1/300 of what it should be"),
    (
        found("of_loss", factor=MEANS[0]),
        "is 5 times what it should be: summed over the batch (5), not averaged: the loss is a mean "
        "there, and this the gradient of a sum",
    ),
    (
        found("clipped", bound=5.0),
        "is the true one clipped to -5 … 5: check it before it is clipped",
    ),
    (
        found("clipped", bound=None),
        "is right where the upstream gradient is small, and cut off where it is large: check it "
        "before it is clipped",
    ),
    (
        found("either_way", one=LESS, other=RATIO),
        "is 1.25 times what it should be: divided by 5 (the batch size) for 4, or the reverse; or "
        "5 (the batch size) / 4 (the length of axis 1 of x): other sizes tell which",
    ),
    (
        found("times", times=2.0, also=BATCH, n=2.0),
        "is twice what it should be (2 is the batch size too)",
    ),
    (
        found("mean_missing", n=5.0, sign=1, what=BATCH),
        "is 5 times what it should be: summed over the batch (5), not averaged",
    ),
    (
        found("averaged_over", n=5.0, sign=-1, what=SIZES[0]),
        "is minus 1/5 of what it should be: averaged over axis 1 of x (5), not summed",
    ),
    (
        found("constant_factor", times=5.0, factor=0.2, text="`y.sum() / 5`", lost=True),
        "is 5 times what it should be: the factor 0.2 of `y.sum() / 5` is missing",
    ),
    (
        found("constant_factor", times=2.0, factor=0.5, text="`0.5 * x`", lost=True),
        "is twice what it should be: the factor 0.5 of `0.5 * x` is missing",
    ),
    (found("all_zeros"), "the gradient is all zeros: it is never written, or written with zeros"),
    (found("nothing_returned"), "no gradient is returned, or written (None)"),
    (found("upstream_ignored"), "the upstream gradient is ignored: multiply by it"),
    (
        found("upstream_not_linear", name="dout", decides=True),
        "dout decides which entries are kept: take the mask from the forward pass",
    ),
    (
        found("upstream_not_linear", name="dout", decides=False),
        "is not proportional to dout, as a gradient is: only multiply it, and sum",
    ),
    (found("transposed"), "is the transpose of the true gradient"),
    (found("swapped", name="b"), "is the gradient of b: the two are swapped"),
    (found("reversed", axis=1), "is reversed along axis 1"),
    (
        found("blocks", count=4, axis=1, order=(1, 0, 2, 3)),
        "has blocks 0 and 1 of its 4 along axis 1 swapped",
    ),
    (
        found("not_summed", axes=0, batch=True, shape=(5, 3), due=(3,)),
        "is not summed over the batch: its shape is (5, 3), it should be (3,)",
    ),
    (
        found("other_sum", change=found("averaged", axes=0), right=True, due_axes=None),
        "is averaged over axis 0: it should be the sum",
    ),
    (
        found("should_keep", change=found("summed", axes=(0, 1)), shape=(1, 1), due_axes=0),
        "is one number: sum over axis 0 only",
    ),
    (
        found("should_keep", change=found("averaged", axes=1), shape=(4, 1), due_axes=None),
        "is averaged over axis 1: it should keep this axis",
    ),
    (
        found("term", of=found("named", name="W"), times=0.1, own=True, lacks=False),
        "has a term too many: 0.1 times W itself (weight decay? then the loss must have it, as "
        "strong)",
    ),
    (
        found("part", wrong=2, of=12, mark=MARKS[0]),
        "only the entries where x > 0 are wrong (2 of its 12 entries)",
    ),
    (
        found("part", wrong=2, of=12, mark=found("slices", axis=1, ndim=2, hit=[2, 3], length=4)),
        "only columns 2 and 3 are wrong (2 of its 12 entries)",
    ),
    (
        found("part", wrong=2, of=12, mark=found("slices", axis=0, ndim=2, hit=[0], length=4)),
        "only row 0 (the first) is wrong (2 of its 12 entries)",
    ),
    (
        found("part", wrong=2, of=12, mark=found("slices", axis=1, ndim=3, hit=[1, 2], length=4)),
        "only the entries [:, 1:3, :] are wrong (2 of its 12 entries)",
    ),
    (
        found("no_pattern", late=False, differing=3, of=12, index=(0, 1)),
        "no known mistake gives these numbers; 3 of its 12 entries are wrong",
    ),
    (
        found("not_finite", count=2, of=12),
        "2 of its 12 entries are NaN or infinite",
    ),
    (
        found("shape", ours=(1, 3), theirs=(3,), update=(1, 3)),
        "has the shape (1, 3), not (3,): W - lr * dW has the shape (1, 3)",
    ),
    (found("left_out", flow=FLOW), "what flows back to x through y is missing"),
    (found("right_with", statement="b = 1", others=[], derivatives=[]), "is right with `b = 1`"),
    (found("right_with", statement="", others=[], derivatives=[]), "is right without this line"),
    (
        found("right_with", statement="b = 1", others=["c = 2", ""], derivatives=[]),
        "is right with `b = 1` and `c = 2` and without a line",
    ),
    (
        found("kink"),
        "there is a kink here (a ReLU at 0, a tie of a max), where any value between the two "
        "slopes is right; beside it, yours is right",
    ),
    (
        found("idealised", constant=1e-7, apart=3.2e-6),
        "right for the forward pass without its 1e-07; with it, the true gradient differs by up "
        "to 3.2e-06 of the largest entry",
    ),
    (
        found("gradients", names=["W", "b"], what=found("stale")),
        "the gradient of W, b depends on an earlier call: it is made from what a forward pass on "
        "other inputs left; store it anew in each forward pass",
    ),
    (
        found("unkept", variable="dW", function="backward"),
        "is computed as the local variable dW of backward and not kept: write self.dW",
    ),
    (found("writes", who="backward", name="W"), "backward writes into W"),
    (
        found("unchecked", why=found("not_returned", what="backward", name="y")),
        "backward returns no gradient for y: it is not checked",
    ),
    (
        found("first_wrong", name="layers[2] (Doubled)"),
        "the first wrong layer on the way back is layers[2] (Doubled): mend it first, then check "
        "again",
    ),
]


@pytest.mark.parametrize(("finding", "text"), EXACT)
def test_the_sentences_that_are_read_most(finding, text):
    assert sentence(finding) == text
