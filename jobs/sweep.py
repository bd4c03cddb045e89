"""Try corruption rates and alignment weights as a Ray job and keep the best trial, chosen without labels.

`ray job submit --working-dir . -- python jobs/sweep.py --data DATA --out OUT --gammas 0.05 0.1 0.2 --alphas 0.05 0.5 5`
"""

import sys

from dynacor_ray.cli import main

if __name__ == "__main__":
    main(["sweep", *sys.argv[1:]])
