"""Losses that learn in spite of wrong labels (§5.5, App. D), one file each; `losses` has them by name."""
