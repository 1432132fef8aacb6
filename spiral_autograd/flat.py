"""A pytree of parameters as flat vectors: one update, however many leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .pytree import Pytree, Sharing, leaves, leaves_like, with_leaves
from .validation import Array, Shape


@dataclass(frozen=True, eq=False)
class FlatLayout:
    """Where each leaf of a pytree lies in flat vectors, one vector for each dtype.

    Leaves that share their memory have one place. With a single dtype, as is usual, the vectors
    are one array; else they are a tuple, which is a pytree for the optimizers.

    Attributes
    ----------
    template : pytree
        A pytree of the structure.
    sharing : Sharing
        Which leaves are one array.
    dtypes : tuple of dtypes
        Those of the vectors.
    places : tuple of (int, slice, shape)
        For each leaf that is not a repetition: its vector, its part of it, its shape.

    Examples
    --------
    >>> layout = FlatLayout.of({"W": np.ones((2, 2)), "b": np.zeros(2)})
    >>> vector = layout.pack([np.ones((2, 2)), np.zeros(2)])
    >>> vector
    array([1., 1., 1., 1., 0., 0.])
    >>> layout.tree(vector)["b"]
    array([0., 0.])
    """

    template: Pytree
    sharing: Sharing
    dtypes: tuple[Any, ...]
    places: tuple[tuple[int, slice, Shape], ...]

    @classmethod
    def of(cls, params: Pytree, sharing: Sharing | None = None) -> FlatLayout:
        """Return the layout of a pytree of float arrays, whose sharing may be known before."""
        sharing = Sharing.of(leaves(params)) if sharing is None else sharing
        unique = sharing.unique(leaves(params))
        dtypes = tuple(dict.fromkeys(np.asarray(leaf).dtype for leaf in unique))
        ends = [0] * len(dtypes)
        places = []
        for leaf in unique:
            vector = dtypes.index(np.asarray(leaf).dtype)
            start, ends[vector] = ends[vector], ends[vector] + np.size(leaf)
            places.append((vector, slice(start, ends[vector]), np.shape(leaf)))
        return cls(params, sharing, dtypes, tuple(places))

    def pack(self, unique: Sequence[Array]) -> Pytree:
        """Return new vectors that hold the leaves, each given once."""
        parts: list[list[Array]] = [[] for _ in self.dtypes]
        for leaf, (vector, _, _) in zip(unique, self.places, strict=True):
            parts[vector].append(np.ravel(leaf))
        vectors = [
            np.concatenate(part, dtype=dtype, casting="same_kind")
            for part, dtype in zip(parts, self.dtypes, strict=True)
        ]
        return vectors[0] if len(vectors) == 1 else tuple(vectors)

    def views(self, vectors: Pytree) -> list[Array]:
        """Return the leaves, each once, as views of the vectors."""
        each = leaves(vectors)
        return [each[vector][part].reshape(shape) for vector, part, shape in self.places]

    def tree(self, vectors: Pytree) -> Pytree:
        """Return the pytree, its leaves as views of the vectors."""
        return with_leaves(self.template, self.sharing.spread(self.views(vectors)))

    def pack_tree(self, params: Pytree) -> Pytree:
        """Return the vectors of a pytree of parameters."""
        return self.pack(self.sharing.unique(leaves(params)))

    def pack_grads(self, grads: Pytree) -> Pytree:
        """Return the vectors of a gradient, in which those of a repeated leaf are added."""
        return self.pack(self.sharing.merge(leaves_like(self.template, grads)))
