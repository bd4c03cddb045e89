"""A trained classifier as a folder of its own: weights that are never executed, how to build it, and a model card."""

from __future__ import annotations

import dataclasses
from typing import Any

from dynacor_ray.core.manifest import LinedUpFeatures
from dynacor_ray.core.storage import Location
from dynacor_ray.report.training_summary import learned_text, method_text
from dynacor_ray.report.wording import percent

WEIGHTS, BUILD, CARD = "model.safetensors", "config.json", "README.md"
"""Files of the folder."""
_HEAD = """\
import json
from pathlib import Path

from safetensors.torch import load_file

from dynacor_ray.models.heads import build_classifier

held = json.loads(Path("config.json").read_text())
weights = load_file("model.safetensors")
mean, scale = weights["scaling.mean"], float(weights["scaling.scale"])
model = build_classifier(
    held["classifier"],
    num_features=held["feature_dim"],
    num_classes=len(held["class_names"]),
    mean=mean,
    scale=scale,
)
model.load_state_dict(weights)
logits = model.eval()(features)  # float32 (B, D) -> (B, C)
"""
_NETWORK = """\
import json
from pathlib import Path

from safetensors.torch import load_file

from dynacor_ray.models.image_classifiers import build_network, parse_network

held = json.loads(Path("config.json").read_text())
model = build_network(parse_network(held["network"] + "@none", held["image_size"]), len(held["class_names"]))
model.load_state_dict(load_file("model.safetensors"))
logits = model.eval()(images)  # uint8 (B, S, S, 3) -> (B, C)
"""
_PAIR = """\
import json
from pathlib import Path

from safetensors.torch import load_file

{imports}

held = json.loads(Path("config.json").read_text())
weights = load_file("model.safetensors")
probabilities = 0.0
for start in ("networks.0.", "networks.1."):
    own = {{name.removeprefix(start): value for name, value in weights.items() if name.startswith(start)}}
    model = {build}
    model.load_state_dict(own)
    probabilities = probabilities + model.eval()({inputs}).softmax(dim=1) / 2  # (B, C)
logits = probabilities.log()
"""
_PAIR_OF_HEADS = _PAIR.format(
    imports="from dynacor_ray.models.heads import build_classifier",
    build="""build_classifier(
        held["classifier"],
        num_features=held["feature_dim"],
        num_classes=len(held["class_names"]),
        mean=own["scaling.mean"],
        scale=float(own["scaling.scale"]),
    )""",
    inputs="features",
)
_PAIR_OF_NETWORKS = _PAIR.format(
    imports="from dynacor_ray.models.image_classifiers import build_network, parse_network",
    build="""build_network(
        parse_network(held["network"] + "@none", held["image_size"]), len(held["class_names"])
    )""",
    inputs="images",
)


def write_model(
    folder: Location,
    weights: bytes,
    summary: dict[str, Any],
    built_by: dict[str, Any],
    lined_up: LinedUpFeatures | None,
) -> None:
    """Write the folder.

    Args:
        folder: Where to.
        weights: A safetensors file.
        summary: Content of the training's `summary.json`, without the seconds.
        built_by: `network` and `image_size` of a network on images; `classifier` and `feature_dim` (numbers of a
            feature vector) of a head on features.
        lined_up: How features are brought into line before the head sees them; None where they are used as they are.
    """
    build: dict[str, Any] = {"class_names": list(summary["data"]["class_names"]), "encoder": summary["encoder"]}
    build |= built_by
    if summary["method"] is not None:
        build["networks"] = 2
    if lined_up is not None:
        build["robust_scaling"] = dataclasses.asdict(lined_up.scaling)
    (folder / BUILD).write_json(build)
    (folder / WEIGHTS).write_bytes(weights)
    (folder / CARD).write_bytes(model_card(summary, build).encode())


def model_card(summary: dict[str, Any], build: dict[str, Any]) -> str:
    """The model card, Markdown. summary: as in `write_model`; build: content of `config.json`."""
    names, last, best = build["class_names"], summary["last"], summary["best"]
    listed = ", ".join(_code(name) for name in names[:50]) + (f" and {len(names) - 50:,} more" if names[50:] else "")
    tested = "Not tested."
    if best is not None:
        tested = (
            f"{percent(last['test_accuracy'])} of {summary['num_tested']:,} test rows are right after the last epoch, "
            f"by their {summary['judged_by']}. Best epoch, chosen by the test rows: {percent(best['test_accuracy'])}."
        )
    if "classifier" not in build:
        takes = f"images of {build['image_size']} px"
    else:
        takes = f"feature vectors of {build['feature_dim']:,} numbers (encoder: `{build['encoder']}`)"
    scaled = '\nBring features into line first: `RobustScaling(**held["robust_scaling"]).apply(features)` of\n'
    scaled += "`dynacor_ray.core.robust_scaling`.\n"
    return f"""\
# Classifier of {len(names):,} classes

Trained by dynacor_ray {summary["versions"]["dynacor_ray"]} with {method_text(summary)} on
{_code(summary["data"]["uri"])}: {learned_text(summary)}. It takes {takes}.

- Classes, in the order of the logits: {listed}
- {tested}
- Its training labels were not all right, and it inherits what they have in common. Test it before you rely on it.

```python
{_code_of(build)}```
{scaled if "robust_scaling" in build else ""}"""


def _code_of(build: dict[str, Any]) -> str:
    """Python that builds the model and asks it."""
    if "networks" in build:
        return _PAIR_OF_HEADS if "classifier" in build else _PAIR_OF_NETWORKS
    return _HEAD if "classifier" in build else _NETWORK


def _code(text: str) -> str:
    """Text from data as Markdown code, which nothing in it can leave."""
    plain = "".join(char if char.isprintable() else "?" for char in text).replace("`", "'")
    return f"`{plain}`"
