"""Two operators that PyTorch does not know: one in Python, one that launches a Triton kernel."""
