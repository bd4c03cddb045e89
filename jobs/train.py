"""Train a classifier as a Ray job: `ray job submit --working-dir . -- python jobs/train.py --data DATA --out OUT`."""

import sys

from dynacor_ray.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
