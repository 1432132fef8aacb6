"""Why a gradient is wrong: a table of known mistakes."""
