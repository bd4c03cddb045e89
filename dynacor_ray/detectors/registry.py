"""The baselines by name (Kim et al., CVPR 2024, Tables 1 and 2): one row each, which the shared tests run over."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

from dynacor_ray.detectors import dynacor
from dynacor_ray.detectors.aum import AUM_TRAINING, aum
from dynacor_ray.detectors.baseline_classifiers import BaselineTraining
from dynacor_ray.detectors.confident_learning import OUT_OF_SAMPLE, both, confident_learning, prune_by_noise_rate
from dynacor_ray.detectors.cores import CORES_TRAINING, cores
from dynacor_ray.detectors.evidence import Evidence, EvidencePart, Verdict
from dynacor_ray.detectors.fm_srm import fm_srm
from dynacor_ray.detectors.mean_margin import avg_encoder, mean_margin
from dynacor_ray.detectors.rethresholded import at_noise_rate, aum_corrupted_recall, simifeat_corrupted_recall
from dynacor_ray.detectors.simifeat import MAX_CLASSES, simifeat_r, simifeat_v
from dynacor_ray.detectors.trained_features import TRAINED_FEATURES


@dataclass(frozen=True)
class Detector:
    """A detector under a name (Tables 1, 2).

    title: what a table shows; reads: parts of the evidence to gather, and trainings of its own; judge: pure; library: a
    package that it needs and that may not be installed, which is also the name of the extra; needs_features: whether it
    reads features that stay the same while a classifier learns, which a network on images has not. Neighbors and
    prototypes are found among the features of the encoder, or of a network (`trained_features`).
    """

    name: str
    title: str
    reads: tuple[EvidencePart | BaselineTraining, ...]
    judge: Callable[[Evidence], Verdict]
    library: str | None = None
    max_classes: int | None = None
    needs_features: bool = False

    def all_reads(self, from_pixels: bool) -> dict[str, EvidencePart | BaselineTraining]:
        """What it reads, by name. from_pixels: whether a network is trained, whose features must be had first."""
        looks = from_pixels and {"neighbors", "prototypes"} & {part for part in self.reads if isinstance(part, str)}
        reads = (TRAINED_FEATURES, *self.reads) if looks else self.reads
        return {part.part if isinstance(part, BaselineTraining) else part: part for part in reads}


def _by_name(*detectors: Detector) -> dict[str, Detector]:
    return {detector.name: detector for detector in detectors}


BASELINES = _by_name(
    Detector("mean_margin", "Mean margin", ("dynamics",), mean_margin),
    Detector("avg_encoder", "Avg.Encoder", ("dynamics",), avg_encoder),
    Detector("aum", "AUM", (AUM_TRAINING,), aum),
    Detector("cl_prune_by_noise_rate", "CL (noise rate)", (OUT_OF_SAMPLE,), prune_by_noise_rate, "cleanlab"),
    Detector("cl_both", "CL (both)", (OUT_OF_SAMPLE,), both, "cleanlab"),
    Detector("cl_confident_learning", "CL (confident joint)", (OUT_OF_SAMPLE,), confident_learning, "cleanlab"),
    Detector("cores", "CORES", (CORES_TRAINING,), cores),
    Detector("simifeat_v", "SimiFeat-V", ("neighbors",), simifeat_v),
    Detector("simifeat_r", "SimiFeat-R", ("neighbors",), simifeat_r, max_classes=MAX_CLASSES),
    Detector("fm_srm", "FM-SRM (stage 1)", ("prototypes", "neighbors"), fm_srm),
)
"""Name -> detector, in the order of the table."""


OURS = _by_name(
    Detector("dynacor", "DynaCor (default)", ("dynamics",), dynacor.dynacor),
    Detector("combined_margin", "Both margins", ("dynamics",), dynacor.combined_margin, needs_features=True),
    Detector("dynacor_paper", "DynaCor (paper)", ("published",), dynacor.dynacor_paper),
    Detector("eq_4", "Eq. 4", ("dynamics",), dynacor.eq_4),
    Detector("dynacor_at_noise_rate", "DynaCor (q, noise rate)", ("dynamics",), dynacor.dynacor_at_noise_rate),
    Detector("early_margin", "Early margin", ("dynamics",), dynacor.early_margin),
    Detector("leave_one_out", "Leave-one-out ridge", ("dynamics",), dynacor.leave_one_out, needs_features=True),
    Detector("corrupted_recall", "Planted recall", ("dynamics",), dynacor.corrupted_recall),
    Detector("mixture", "Mixture", ("dynamics",), dynacor.mixture),
    Detector("untrained", "No losses", ("published", "ablation"), dynacor.untrained),
    Detector("clustering_only", "Clustering loss only", ("published", "ablation"), dynacor.clustering_only),
)


def _at_noise_rate(name: str, title: str) -> Detector:
    one, judge = BASELINES[name], at_noise_rate(BASELINES[name].judge)
    return Detector(f"{name}_at_noise_rate", f"{title} (noise rate)", ("dynamics", *one.reads), judge)


RECUT = _by_name(
    _at_noise_rate("aum", "AUM"),
    _at_noise_rate("simifeat_r", "SimiFeat-R"),
    _at_noise_rate("fm_srm", "FM-SRM"),
    Detector("aum_corrupted_recall", "AUM (planted recall)", (AUM_TRAINING,), aum_corrupted_recall),
    Detector(
        "simifeat_corrupted_recall",
        "SimiFeat-R (planted recall)",
        ("neighbors",),
        simifeat_corrupted_recall,
    ),
)
"""Rankings of baselines with this package's cuts: margins with an extra class, votes of neighbors, prototypes."""


DETECTORS: dict[str, Detector] = OURS | BASELINES | RECUT
"""Name -> detector, in the order of the table."""


def missing_library(name: str) -> str | None:
    """The library that a detector needs and that is not installed, if any."""
    library = DETECTORS[name].library
    return library if library is not None and importlib.util.find_spec(library) is None else None
