"""NumPy code on boxes: how autograd follows it, and what it has recorded."""
