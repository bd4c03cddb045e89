"""The method of the paper: pure functions on arrays and tensors, no Ray (§4)."""
