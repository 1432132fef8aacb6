"""The reference gradient: autograd; else complex step; else central differences."""
