"""The detectors that `dynacor compare` judges: pure functions, one file per method, no Ray here.

To add one, see the guide *extend* (`dynacor_ray/guides/extend.md`).
"""
