"""Find wrong labels as a Ray job: `ray job submit --working-dir . -- python jobs/detect.py --data DATA --out OUT`."""

import sys

from dynacor_ray.cli import main

if __name__ == "__main__":
    main(["detect", *sys.argv[1:]])
