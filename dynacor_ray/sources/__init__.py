"""What `--data` understands, one file per kind: no Ray here.

To add one, see the guide *extend* (`dynacor_ray/guides/extend.md`).
"""
