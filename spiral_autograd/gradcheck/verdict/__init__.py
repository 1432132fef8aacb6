"""Leaf by leaf: what differs, and what of it is rounding, a kink or an idealised constant."""
