"""What a row or a report says, asked for by kind and fields instead of by its English."""

from spiral_autograd.gradcheck.finding import Finding

NAMES = {"named": "name", "expression": "text"}


def parts(said):
    """Return the findings of a row, of a report or of a list, and those that are fields of them."""
    findings = getattr(said, "findings", said)
    return [part for finding in findings for part in finding.parts()]


def kinds(said):
    """Return the kinds of all that is said."""
    return {part.kind for part in parts(said)}


def has(said, kind, /, **fields):
    """Tell whether something of a kind is said, with at least these fields.

    A field that is a finding itself is compared by its name, else by its kind.
    """
    return any(
        part.kind == kind
        and fields.keys() <= part.fields.keys()
        and all(_short(part.fields[name]) == wanted for name, wanted in fields.items())
        for part in parts(said)
    )


def says(said, wanted):
    """Tell whether all kinds of a dict are said, with the fields that it has for each."""
    return all(has(said, kind, **fields) for kind, fields in wanted.items())


def _short(value):
    if isinstance(value, Finding):
        return value.fields.get(NAMES.get(value.kind), value.kind)
    return [_short(item) for item in value] if isinstance(value, list) else value
