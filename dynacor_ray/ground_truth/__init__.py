"""Noise models for experiments (App. A); with `evaluation` the only code that knows true labels."""
