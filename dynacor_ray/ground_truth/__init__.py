"""The only readers of true labels: noise models for experiments (App. A), metrics and a supervised bound (App. B)."""
