"""Packs and embeds the data: from a checked configuration to the rows of a training."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.core.errors import ConfigError, expected_got
from dynacor_ray.core.manifest import DatasetManifest
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.storage import Location
from dynacor_ray.engine.data.embed import FeatureStore, embed
from dynacor_ray.engine.data.ingest import ingest
from dynacor_ray.engine.data.labels import LabelTable
from dynacor_ray.engine.data.training_rows import TrainingRows, rows_of_embeddings, rows_of_features, rows_of_images
from dynacor_ray.models.encoders import EncoderSpec, load_encoder, parse_encoder, resolve_auto
from dynacor_ray.models.image_classifiers import NetworkSpec, build_network
from dynacor_ray.runs import directory as rundir
from dynacor_ray.runs.directory import QUARANTINE
from dynacor_ray.sources.base import Kind
from dynacor_ray.workflows.prepare import Prepared


@dataclass(frozen=True)
class Opened:
    """Data that are packed and embedded: what training and assembly read."""

    dataset: Location
    manifest: DatasetManifest
    spec: EncoderSpec | NetworkSpec
    rows: TrainingRows
    labels: LabelTable
    store: FeatureStore | None
    """None for data that are features themselves, and for a network."""
    features: tuple[Location, ...]
    """Files with the features of the originals; none for a network."""


def open_data(prepared: Prepared, use_gpu: bool, progress: Progress) -> Opened:
    """Pack and embed what is not yet packed and embedded; ties the run directory to the encoder."""
    dataset, run = prepared.cache.make_dir() / "dataset", prepared.run
    with progress.timed("ingest"):
        manifest = ingest(prepared.source, dataset, prepared.config.max_invalid_share, progress)
        _show_quarantine(manifest, dataset, run, progress)
    labels = LabelTable.of_dataset(dataset, manifest)
    network = prepared.training.network
    if network is not None:
        rundir.tie_encoder(run, f"{network.slug} {network.fingerprint()}")
        if network.whole_file:
            build_network(network, manifest.num_classes)
        return Opened(dataset, manifest, network, _image_rows(prepared, manifest, labels), labels, None, ())
    with progress.timed("embed"):
        spec = choose_encoder(prepared.config, prepared.source.kind, manifest.max_side or 0, manifest.gray)
        rundir.tie_encoder(run, f"{spec.slug} {spec.fingerprint()}")
        store = feature_store(prepared, manifest, spec, use_gpu, progress)
        rows = training_rows(prepared, manifest, store, labels)
    files = [store.originals / name for name in store.files] if store else [dataset / p.name for p in manifest.parts]
    return Opened(dataset, manifest, spec, rows, labels, store, tuple(files))


def _image_rows(prepared: Prepared, manifest: DatasetManifest, labels: LabelTable) -> TrainingRows:
    """What a network is trained on: images, and as copies those that §4.2 makes of them."""
    assert prepared.training.augmentation is not None
    kind = prepared.config.augmentation
    return rows_of_images(
        prepared.cache / "dataset",
        manifest,
        labels,
        prepared.corruption,
        "none" if kind == "auto" else kind,
        prepared.training.augmentation.stored,
    )


def _show_quarantine(manifest: DatasetManifest, dataset: Location, run: Location, progress: Progress) -> None:
    """Put the list of rows set aside where the user looks."""
    if manifest.quarantined:
        place = run / QUARANTINE
        place.write_table((dataset / manifest.quarantine).read_table())
        progress.say(f"{manifest.quarantined:,} unusable rows set aside; see {place}")


def check_encoder(prepared: Prepared) -> None:
    """Find out now, not after ingest, that an encoder does not fit the data or that its weights cannot be had."""
    network = prepared.training.network
    if network is not None:
        if not network.whole_file:  # which has to fit classes that are not counted yet
            build_network(network, 2)
    elif prepared.config.encoder != "auto":
        spec = choose_encoder(prepared.config, prepared.source.kind, 0, False)
        if spec.kind != "features":
            load_encoder(spec, "cpu")


def choose_encoder(config: DetectConfig, kind: Kind, max_side: int, gray: bool) -> EncoderSpec:
    """The encoder that options and data ask for; `max_side`: longest side of the images in pixels, gray: all of them.

    Raises EncoderError for an unknown encoder, ConfigError when it does not fit the kind of data.
    """
    if config.encoder == "auto":
        spec = resolve_auto(kind, max_side, gray)
        return dataclasses.replace(spec, image_size=config.image_size) if config.image_size else spec
    spec = parse_encoder(config.encoder, config.image_size)
    if (spec.kind == "features") != (kind == "feature"):
        wanted = "--encoder features (or auto)" if kind == "feature" else "an image encoder"
        got = f"--encoder {config.encoder}"
        raise ConfigError(expected_got(f"{wanted} for data that hold {kind}s", got, "change it or the data"))
    return spec


def feature_store(
    prepared: Prepared, manifest: DatasetManifest, spec: EncoderSpec, use_gpu: bool, progress: Progress
) -> FeatureStore | None:
    """Embeddings of the images and of the copies, made once per encoder; None for data that are features."""
    if spec.kind == "features":
        return None
    augmentation = prepared.config.augmentation
    if augmentation == "auto":
        augmentation = "none" if spec.kind == "pixels" else "flip"
    return embed(
        prepared.cache / "dataset",
        manifest,
        spec,
        prepared.corruption,
        augmentation,
        prepared.features,
        use_gpu,
        progress,
    )


def training_rows(
    prepared: Prepared,
    manifest: DatasetManifest,
    store: FeatureStore | None,
    labels: LabelTable,
    with_copies: bool = True,
) -> TrainingRows:
    """What a classifier is trained on: features as given, or embeddings; `with_copies`: and corrupted copies (§4.2)."""
    corruption = prepared.corruption if with_copies else None
    if store is None:
        return rows_of_features(prepared.cache / "dataset", manifest, labels, corruption)
    return rows_of_embeddings(store, manifest, labels, corruption)
