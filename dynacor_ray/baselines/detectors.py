"""All detectors by name: DynaCor, the decisions of this package, and the baselines (Tables 1, 2 and 4)."""

from __future__ import annotations

import importlib.util

from dynacor_ray.baselines import dynacor
from dynacor_ray.baselines.cuts import at_noise_rate, aum_planted_recall, simifeat_planted_recall
from dynacor_ray.baselines.registry import BASELINES, Detector

OURS = {
    detector.name: detector
    for detector in (
        Detector("dynacor", "DynaCor (default)", ("dynamics",), dynacor.dynacor),
        Detector("dynacor_paper", "DynaCor (paper)", ("dynamics",), dynacor.dynacor_paper),
        Detector("dynacor_at_noise_rate", "DynaCor (q, noise rate)", ("dynamics",), dynacor.dynacor_at_noise_rate),
        Detector("early_margin", "Early margin", ("dynamics",), dynacor.early_margin),
        Detector("leave_one_out", "Leave-one-out ridge", ("dynamics",), dynacor.leave_one_out),
        Detector("planted_recall", "Planted recall", ("dynamics",), dynacor.planted_recall),
        Detector("mixture", "Mixture", ("dynamics",), dynacor.mixture),
        Detector("untrained", "No losses", ("dynamics", "ablation"), dynacor.untrained),
        Detector("clustering_only", "Clustering loss only", ("dynamics", "ablation"), dynacor.clustering_only),
    )
}

_RECUT = (("aum", "AUM"), ("simifeat_r", "SimiFeat-R"), ("fm_srm", "FM-SRM"))
RECUT = {
    f"{name}_at_noise_rate": Detector(
        f"{name}_at_noise_rate",
        f"{title} (noise rate)",
        ("dynamics", *BASELINES[name].reads),
        at_noise_rate(BASELINES[name].judge),
    )
    for name, title in _RECUT
} | {
    detector.name: detector
    for detector in (
        Detector("aum_planted_recall", "AUM (planted recall)", ("aum",), aum_planted_recall),
        Detector("simifeat_planted_recall", "SimiFeat-R (planted recall)", ("neighbours",), simifeat_planted_recall),
    )
}
"""Rankings of baselines with this package's cuts: margins with an extra class, votes of neighbours, prototypes."""

DETECTORS: dict[str, Detector] = OURS | BASELINES | RECUT
"""Name -> detector, in the order of the table."""


def missing_library(name: str) -> str | None:
    """The library that a detector needs and that is not installed, if any."""
    library = DETECTORS[name].library
    return library if library is not None and importlib.util.find_spec(library) is None else None
