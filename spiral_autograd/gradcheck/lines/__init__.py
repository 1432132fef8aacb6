"""The reader's own code: its text, what its lines make, and which of them is to blame."""
