"""What `--data` understands, one file per kind: no Ray here.

# Add a source

A `base.Source` is a labeled data set as somebody has it. It opens without reading all of it, and cuts itself into
`base.Shard`s, which are sent to other processes and read there. Numbering, checking, packing and setting bad rows aside
is the same for all sources and not theirs. This one reads a NumPy archive with the arrays `features` and `labels`:

```python
import os
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

import dynacor_ray
from dynacor_ray.core import schema
from dynacor_ray.sources.base import Shard, Source, SourceOptions
from dynacor_ray.core.hashing import digest
from dynacor_ray.sources.image_files import cut
from dynacor_ray.sources.registry import SOURCES


@dataclass(frozen=True)
class NumpyShard(Shard):
    path: str
    first_row: int
    num_rows: int

    def _load(self, name: str) -> np.ndarray:
        with np.load(self.path, allow_pickle=False) as arrays:
            return arrays[name][self.first_row : self.first_row + self.num_rows]

    def read_labels(self) -> pa.StringArray:
        return pa.array(self._load("labels").astype(str))

    def read(self) -> pa.Table:
        rows = np.arange(self.first_row, self.first_row + self.num_rows)
        return pa.table(
            {
                "row": rows,
                "uri": [f"{self.path}#{row}" for row in rows],
                "label": self.read_labels(),
                "error": pa.nulls(self.num_rows, pa.string()),  # or why a row cannot be used
                "feature": schema.fixed_size_list(self._load("features").astype(np.float32)),
            }
        )


class NumpySource(Source):
    name = "numpy"
    kind = "feature"
    class_names = None  # the labels that are found

    def __init__(self, root: str, options: SourceOptions) -> None:
        self.uri = os.path.abspath(root)  # other processes work elsewhere
        with np.load(root, allow_pickle=False) as arrays:
            self.num_rows = len(arrays["labels"])

    def fingerprint(self) -> str:
        found = os.stat(self.uri)
        return digest([self.name, self.uri, found.st_size, found.st_mtime_ns])

    def shards(self, max_rows: int) -> list[Shard]:
        return cut(self.num_rows, max_rows, lambda first, count: NumpyShard(self.uri, first, count))


SOURCES["numpy"] = NumpySource
result = dynacor_ray.detect("numpy:arrays.npz", out="runs/arrays")
```

`has_truth = True` and a column `true_label` bring known labels along, `has_instance_ids = True` and `instance_id` ids
of its own. A bad row has its reason in `error` and raises nothing; what makes the whole unusable is a `DataError` when
it is opened, made with `core.errors.expected_got`: expected, got, what to do.

In this package a source is a file here, a row of `registry.SOURCES` or a case of `registry._recognize`, tests like
those in `tests/unit/sources/test_parquet.py`, and a line in the README's table.
"""
