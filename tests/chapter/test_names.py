"""The names of the package: what it has, and what the book's names are here."""

import re

import pytest

import spiral_autograd as sa


@pytest.mark.parametrize("name", sorted(sa.BOOK))
def test_a_name_of_the_book_says_what_does_its_work_here(name):
    with pytest.raises(AttributeError, match=rf"'{name}': for the book's {name} use "):
        getattr(sa, name)
    named = re.findall(r"(?:manual\.)?[a-z_]{3,}", sa.BOOK[name])
    found = [part for part in named if hasattr(sa, part.split(".")[0])]
    assert found
    for part in found:
        if part.startswith("manual."):
            assert callable(getattr(sa.manual, part.removeprefix("manual.")))


def test_another_name_is_only_said_to_be_missing():
    with pytest.raises(AttributeError, match=r"has no attribute 'Transformer'$"):
        sa.Transformer  # noqa: B018


def test_tab_shows_the_public_names_before_their_first_use():
    shown = [name for name in dir(sa) if not name.startswith("_")]
    assert sorted(sa.__all__) == shown
    assert {"check_layer", "fit", "save", "load"} <= set(shown)
