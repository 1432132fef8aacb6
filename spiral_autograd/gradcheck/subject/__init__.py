"""Somebody's layer, pair of functions, or loss with its gradient: how to run it."""
