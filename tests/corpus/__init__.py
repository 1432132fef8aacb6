"""Handwritten layers as other people write them: the checker must call none of them wrong.

Each file gives ``CHECKS``: name -> function(rng, sizes) -> Check, a call of the right check.
"""
