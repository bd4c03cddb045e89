"""Find wrong labels in Clothing1M: `ray job submit --working-dir . -- python jobs/clothing1m.py --data ROOT --out OUT`.

ROOT holds the data set as its authors ship it; `--balanced-sample 120000` is the paper's protocol (App. A.1).
"""

import dataclasses
import sys

from dynacor_ray.cli import main
from dynacor_ray.config.detect import DetectConfig


def as_clothing1m(config: DetectConfig) -> DetectConfig:
    """Insist on Clothing1M's layout, so that a wrong ROOT is told as such."""
    return dataclasses.replace(config, data="clothing1m:" + config.data.removeprefix("clothing1m:"))


if __name__ == "__main__":
    main(["detect", *sys.argv[1:]], adjust=as_clothing1m)
