"""Compare detectors as a Ray job, on data with known true labels.

`ray job submit --working-dir . -- python jobs/compare_baselines.py --data DATA --label-noise given symmetric:0.6`
"""

import sys

from dynacor_ray.cli import main

if __name__ == "__main__":
    main(["compare", *sys.argv[1:]])
