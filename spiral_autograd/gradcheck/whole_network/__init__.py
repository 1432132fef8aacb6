"""Networks: layer by layer, and their own way through the layers."""
