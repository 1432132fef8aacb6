"""The figures in the README, measured."""
