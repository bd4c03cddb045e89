"""Analyze training signals and corruption rates as a Ray job, on data with known true labels.

`ray job submit --working-dir . -- python jobs/analyze_signals.py --data DATA --label-noise given symmetric:0.6`
"""

import sys

from dynacor_ray.cli import main

if __name__ == "__main__":
    main(["analyze-signals", *sys.argv[1:]])
