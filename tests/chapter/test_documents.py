"""The documents say the same in both languages, name all that there is, and lead somewhere."""

import re
from pathlib import Path

import pytest

import spiral_autograd as sa

ROOT = Path(__file__).parents[2]
READMES = [ROOT / "README.md", ROOT / "README.ja.md"]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def text_of(path):
    return path.read_text(encoding="utf-8")


def code_blocks(text):
    """Return what stands between fences, and what is indented as the commands are."""
    return re.findall(r"^```\w+\n.*?^```|^    python3 [^\n]*$", text, re.DOTALL | re.MULTILINE)


def anchors(text):
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_both_readmes_have_the_same_code():
    english, japanese = (code_blocks(text_of(path)) for path in READMES)
    assert len(english) >= 5
    assert japanese == english


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.name)
def test_a_readme_is_short_and_names_all_that_is_public(path):
    text = text_of(path)
    assert len(text.splitlines()) <= 200
    assert (READMES[1] if path == READMES[0] else READMES[0]).name in text[:100]
    assert [name for name in sa.__all__ if not re.search(rf"`{name}\b", text)] == []


def test_both_readmes_have_the_same_tables():
    english, japanese = (
        [line.count("|") for line in text_of(path).splitlines() if line.startswith("|")]
        for path in READMES
    )
    assert japanese == english


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    text = re.sub(r"^```.*?^```", "", text_of(path), flags=re.DOTALL | re.MULTILINE)
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", text):
        other = (path.parent / target) if target else path
        assert other.exists(), target
        assert not anchor or anchor in anchors(text_of(other)), (target, anchor)


def test_the_guide_stays_within_its_length():
    assert len(text_of(ROOT / "docs" / "checker.md").splitlines()) <= 600


def test_the_bridge_names_what_the_book_has():
    bridge = text_of(ROOT / "docs" / "book.md")
    assert [name for name in sa.BOOK if f"`{name}" not in bridge] == []
