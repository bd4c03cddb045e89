"""Table 7 on Clothing1M as one command, on a miniature of its tree."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from dynacor_ray.workflows.results import load
from tests.documented import ROOT
from tests.opened_sources import png, write
from tests.unit.sources.test_clothing1m import clothing


def test_every_loss_before_and_after_cleaning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each class has a shade of its own, so that some rows are left."""
    monkeypatch.syspath_prepend(str(ROOT / "jobs"))
    monkeypatch.delitem(sys.modules, "clothing1m_cleaning", raising=False)
    import clothing1m_cleaning as table

    root = clothing(tmp_path / "data", per_class=6)
    write(root / "annotations" / "clean_test_key_list.txt", "images/0/both 1.jpg\nimages/0/both 2.jpg\n")
    for path in (root / "images").rglob("*,*.jpg"):
        write(path, png(17 * int(path.name.split(",")[0])))
    small = {"balanced_sample": 70, "seeds": 2, "losses": ("elr",), "network": "cifar_resnet8", "image_size": 8}
    options = table.Options(data=str(root), out=tmp_path / "out", epochs=2, batch_size=16, cluster="none", **small)
    table.main(options)
    found = json.loads(capsys.readouterr().out)
    names = ["elr original", "elr cleansed"]
    assert list(found) == ["flagged", *names]
    flagged = [load(str(tmp_path / "out" / f"detect-{seed}")).summary.num_flagged for seed in (0, 1)]
    assert found["flagged"][0] == pytest.approx(100 * np.mean(flagged) / 70, abs=0.01)
    table.main(options)
    assert json.loads(capsys.readouterr().out) == found, "the second time nothing is left to do"
