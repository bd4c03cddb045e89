"""Study training signals and corruption rates as a Ray job, on data with known true labels.

`ray job submit --working-dir . -- python jobs/study.py --data DATA --out OUT --noises given symmetric:0.6`
"""

import sys

from dynacor_ray.cli import main

if __name__ == "__main__":
    main(["study", *sys.argv[1:]])
