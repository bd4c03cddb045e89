"""The baselines by name (Kim et al., CVPR 2024, Tables 1 and 2): one row each, which enrols it in the shared tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dynacor_ray.baselines.aum import aum
from dynacor_ray.baselines.base import Evidence, Part, Verdict
from dynacor_ray.baselines.confident_learning import both, confident_learning, prune_by_noise_rate
from dynacor_ray.baselines.cores import cores
from dynacor_ray.baselines.margins import avg_encoder, mean_margin
from dynacor_ray.baselines.prototypes import fm_srm
from dynacor_ray.baselines.simifeat import simifeat_r, simifeat_v


@dataclass(frozen=True)
class Detector:
    """A detector under a name (Tables 1, 2).

    title: what a table shows; reads: parts of the evidence to gather; judge: pure; library: a package that it needs
    and that may not be installed, which is also the name of the extra.
    """

    name: str
    title: str
    reads: tuple[Part, ...]
    judge: Callable[[Evidence], Verdict]
    library: str | None = None


BASELINES: dict[str, Detector] = {
    detector.name: detector
    for detector in (
        Detector("mean_margin", "Mean margin", ("dynamics",), mean_margin),
        Detector("avg_encoder", "Avg.Encoder", ("dynamics",), avg_encoder),
        Detector("aum", "AUM", ("aum",), aum),
        Detector("cl_prune_by_noise_rate", "CL (noise rate)", ("out_of_sample",), prune_by_noise_rate, "cleanlab"),
        Detector("cl_both", "CL (both)", ("out_of_sample",), both, "cleanlab"),
        Detector("cl_confident_learning", "CL (confident joint)", ("out_of_sample",), confident_learning, "cleanlab"),
        Detector("cores", "CORES", ("cores",), cores),
        Detector("simifeat_v", "SimiFeat-V", ("neighbours",), simifeat_v),
        Detector("simifeat_r", "SimiFeat-R", ("neighbours",), simifeat_r),
        Detector("fm_srm", "FM-SRM (stage 1)", ("prototypes", "neighbours"), fm_srm),
    )
}
"""Name -> detector, in the order of the table."""
