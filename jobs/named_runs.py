"""Named runs: each a function that returns the options, with its command, hardware, time and expected result."""

from __future__ import annotations

from typing import Any

from dynacor_ray.config.analyze_signals import AnalyzeSignalsConfig
from dynacor_ray.config.compare import CompareConfig
from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.config.options import make_config


def demo() -> DetectConfig:
    """scikit-learn's 1,797 digits with 20% planted symmetric noise, raw pixels.

    Command: `dynacor detect --data demo`. Two CPU cores: 44 s; F1 95.2 (seed 0).
    """
    return DetectConfig(data="demo")


def paper_frozen_encoder(data: str) -> DetectConfig:
    """Table 5's first column, all as printed: frozen CLIP ViT-B/32 and MLP. Needs the hub or local weights.

    Not measured here; the paper has F1 79.6 on CIFAR-10N's aggregate labels.

    Command: `python jobs/detect.py --data DATA --recipe frozen_clip --variant paper`.
    """
    return make_config(DetectConfig, data, recipe="frozen_clip", variant="paper")


def clothing1m(root: str, **options: Any) -> DetectConfig:
    """Clothing1M with a frozen encoder; `balanced_sample=120000` is the paper's protocol (App. A.1). Not measured here.

    Command: `ray job submit --working-dir . -- python jobs/clothing1m.py --data ROOT --out OUT`.
    """
    return make_config(DetectConfig, "clothing1m:" + root.removeprefix("clothing1m:"), **options)


def comparison(data: str) -> CompareConfig:
    """Tables 1 and 2: all detectors on given labels and three kinds of noise made from the true ones, three seeds.

    Command: `python jobs/compare_baselines.py --data DATA --label-noise given symmetric:0.6 asymmetric:0.3
    instance_dependent:0.4 --seeds 0 1 2`.
    """
    noises = ("given", "symmetric:0.6", "asymmetric:0.3", "instance_dependent:0.4")
    return CompareConfig(detect=DetectConfig(data=data), label_noise=noises, seeds=(0, 1, 2))


def ablation(data: str) -> CompareConfig:
    """Table 4: the paper without both losses, with the clustering loss only, and with both, on one training as printed.

    Command: `python jobs/compare_baselines.py --data DATA --detectors untrained clustering_only dynacor_paper`.
    """
    detectors = ("untrained", "clustering_only", "dynacor_paper")
    return CompareConfig(detect=DetectConfig(data=data), detectors=detectors)


def signals(data: str) -> AnalyzeSignalsConfig:
    """Table 6, Figs. 5 and 6: F1 of App. B's supervised bound on every signal, over its dynamics and over its mean.

    Command: `python jobs/analyze_signals.py --data DATA --label-noise given symmetric:0.6 asymmetric:0.3
    instance_dependent:0.4`.
    """
    noises = ("given", "symmetric:0.6", "asymmetric:0.3", "instance_dependent:0.4")
    return AnalyzeSignalsConfig(detect=DetectConfig(data=data), label_noise=noises)


def corruption_rates(data: str) -> AnalyzeSignalsConfig:
    """Fig. 2: F1 over the corruption rate, supervised (App. B) and unsupervised (Eq. 4, and the default of `detect`).

    Command: `python jobs/analyze_signals.py --data DATA --gammas 0.05 0.1 0.2 0.4 0.6 0.8 1.0 --signals margin_sign`.
    """
    gammas = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
    return AnalyzeSignalsConfig(detect=DetectConfig(data=data), gammas=gammas, signals=("margin_sign",))
