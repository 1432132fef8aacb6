"""The spiral: three arms of points in the plane that no straight line can separate."""

from __future__ import annotations

import numpy as np

from .validation import Array, Random, hinting, positive_integer, random_stream


@hinting
def load_data(
    rng: Random = 1984, *, samples_per_class: int = 100, classes: int = 3
) -> tuple[Array, Array]:
    """Return the points of the spiral, class after class, and their one-hot classes.

    Point i of class j lies at the radius r = i / samples_per_class and at the angle
    4 j + 4 r + 0.2 z, where z is one standard normal draw for each point (Saito, *Deep Learning
    from Scratch 2*, section 1.4.1): float64 (classes * samples_per_class, 2), and int64 classes.

    Parameters
    ----------
    rng : int, RandomState or Generator, default 1984
        The stream of the draws. An int seeds a new ``RandomState``; a stream that is given is
        advanced by ``classes * samples_per_class`` normals.
    samples_per_class, classes : int
        ValueError or TypeError for what is no whole number of at least 1, or no stream.

    Examples
    --------
    >>> x, t = load_data()
    >>> x.shape, t.shape
    ((300, 2), (300, 3))
    >>> x[101].round(8), t[101]
    (array([-0.00837021, -0.00547171]), array([0, 1, 0]))
    """
    samples_per_class = positive_integer("samples_per_class", samples_per_class)
    classes = positive_integer("classes", classes)
    noise = random_stream(rng).standard_normal((classes, samples_per_class))
    radius = np.arange(samples_per_class) / samples_per_class
    angle = 4.0 * np.arange(classes)[:, None] + 4.0 * radius + 0.2 * noise
    x = np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=-1).reshape(-1, 2)
    t = np.repeat(np.eye(classes, dtype=np.int64), samples_per_class, axis=0)
    return x, t
