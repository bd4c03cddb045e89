"""The detectors that `dynacor compare` judges: pure functions, one file per method, no Ray here.

# Add a detector

A detector reads an `Evidence`, whose parts are gathered once for all detectors that ask for them, and answers with a
`Verdict`: a flag and a score per row, low where the label is likely wrong. This one ranks by the late half of the
training and flags what never fitted:

```python
import numpy as np

import dynacor_ray
from dynacor_ray.detectors.evidence import Evidence, Verdict
from dynacor_ray.detectors.registry import DETECTORS, Detector


def late_margin(evidence: Evidence) -> Verdict:
    margins = evidence.part("margins").astype(np.float64)
    score = margins[:, margins.shape[1] // 2 :].mean(axis=1)
    return Verdict(is_label_issue=score < 0, score=score)


DETECTORS["late_margin"] = Detector("late_margin", "Late margin", reads=("dynamics",), judge=late_margin)
result = dynacor_ray.compare("labeled.parquet", out="runs/late", detectors=["dynacor", "late_margin"])
print(result.to_pandas())
```

In this package a detector is a file here, whose docstring cites the paper and lists what differs from it, and a row of
`registry.BASELINES`, which enrols it in the shared tests (`tests/unit/detectors/test_registry.py`): permuted rows, an
absent class, a better score for right labels. One that needs classifiers of its own declares them in its file, as
`detectors.cores` does: a `baseline_classifiers.BaselineTraining`, which its row names among what it reads. True labels
are never part of the evidence.
"""
