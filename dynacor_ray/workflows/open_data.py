"""Packs and embeds the data: from a checked configuration to the rows of a training."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import get_args

from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.core.errors import ConfigError, EncoderError, counted, expected_got, first_line
from dynacor_ray.core.hashing import digest
from dynacor_ray.core.leftovers import no_empty_folders
from dynacor_ray.core.manifest import LinedUpFeatures
from dynacor_ray.core.packed_dataset import PackedDataset
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.storage import Location
from dynacor_ray.engine.data.embed import FeatureStore, embed, stored
from dynacor_ray.engine.data.ingest import ingest
from dynacor_ray.engine.data.training_rows import TrainingRows, rows_of_embeddings, rows_of_features, rows_of_images
from dynacor_ray.engine.runtime.machine import usable_cpus
from dynacor_ray.engine.runtime.session import on_cluster, resources
from dynacor_ray.method.corruption import CorruptionConfig
from dynacor_ray.models.auto_encoder import Choice, Work, candidates, choose
from dynacor_ray.models.encoder_spec import BackEnd
from dynacor_ray.models.encoders import Encoder, EncoderSpec, load_encoder, parse_encoder, ready_encoder, with_back_ends
from dynacor_ray.models.image_classifiers import NetworkSpec, build_network
from dynacor_ray.runs import directory as run_directory
from dynacor_ray.runs.directory import QUARANTINE
from dynacor_ray.sources.base import Kind
from dynacor_ray.workflows.prepare import PreparedRun, corruption_config, training_config

FEATURES = EncoderSpec("features", "features")
"""What stands for the encoder of data that are features."""


@dataclass(frozen=True)
class OpenedData:
    """Data that are packed and embedded."""

    dataset: PackedDataset
    spec: EncoderSpec | NetworkSpec
    rows: TrainingRows
    store: FeatureStore | None
    """None for data that are features themselves, and for a network."""
    encoder_reason: str | None = None
    """Why this encoder, and what a better or quicker one needs, in one line; None where there is nothing to say."""

    @property
    def features(self) -> list[Location]:
        """Files with the features of the originals; of no use with a network."""
        return self.dataset.files if self.store is None else [self.store.originals / name for name in self.store.files]

    @property
    def lined_up(self) -> LinedUpFeatures | None:
        """How those features are brought into line."""
        return self.dataset.manifest.lined_up if self.store is None else self.store.lined_up


def open_data(prepared: PreparedRun, use_gpu: bool, progress: Progress, with_copies: bool = True) -> OpenedData:
    """Pack and embed what is not yet packed and embedded; ties the run directory to the encoder.

    with_copies: whether there are corrupted copies (§4.2) among the rows.
    """
    config, run = prepared.config, prepared.run
    with progress.timed("ingest"), no_empty_folders(prepared.packed):
        folder, owner = prepared.packed.make_dir(), digest(str(run))[:8]
        dataset = ingest(prepared.source, folder, config.max_invalid_share, progress, owner)
        _show_quarantine(dataset, run, progress)
    training, corruption = prepared.training, corruption_config(config) if with_copies else None
    network = training.network
    if network is not None:
        run_directory.tie_encoder(run, f"{network.slug} {network.fingerprint()}")
        if network.whole_file:
            build_network(network, dataset.num_classes)
        return OpenedData(dataset, network, image_rows(config, dataset, corruption), None)
    with progress.timed("embed"):
        spec, encoder, reason = FEATURES, None, None
        if prepared.source.kind == "feature":
            choose_encoder(config, "feature", Work(0, 0))
        else:
            spec, encoder, reason = _ready_encoder(prepared, dataset, corruption, use_gpu)
        run_directory.tie_encoder(run, spec.identity, reason)
        if reason is not None:
            progress.say(reason)
        store = feature_store(prepared, dataset, spec, corruption, use_gpu, progress, encoder)
        return OpenedData(
            dataset, spec, training_rows(dataset, store, corruption, config.plain_features), store, reason
        )


def _ready_encoder(
    prepared: PreparedRun, dataset: PackedDataset, corruption: CorruptionConfig | None, use_gpu: bool
) -> tuple[EncoderSpec, Encoder | None, str | None]:
    """The encoder, loaded unless all its features are stored, and why this one.

    A run that was begun keeps the one that it was begun with.
    """
    config, manifest = prepared.config, dataset.manifest
    begun, reason = run_directory.tied_encoder(prepared.run)
    work = image_work(config, manifest.num_rows, manifest.max_side or 0, manifest.gray, use_gpu)
    callers = 1 if on_cluster() else usable_cpus()

    def load(spec: EncoderSpec, why: str | None) -> tuple[EncoderSpec, Encoder | None, str | None]:
        for known in with_back_ends(spec, use_gpu):
            if begun in (None, known.identity) and _stored(prepared, dataset, known, corruption) is not None:
                return known, None, why or None
        ready = ready_encoder(spec, use_gpu=use_gpu, callers=callers, begun=begun)
        return ready.spec, ready.encoder, " ".join(line for line in (why, ready.note) if line) or None

    if config.encoder == "auto" and begun is not None:
        for spec in candidates(work):
            if begun in spec.identities():
                return *load(spec, None)[:2], reason
    choice = choose_encoder(config, "image", work)
    try:
        return load(choice.spec, choice.reason)
    except EncoderError as error:
        other = choose(work, first_line(error))
        if config.encoder != "auto" or other.spec == choice.spec:
            raise
        return load(other.spec, other.reason)


def _show_quarantine(dataset: PackedDataset, run: Location, progress: Progress) -> None:
    """Put the list of quarantined rows where the user looks."""
    if dataset.manifest.quarantined:
        place = run / QUARANTINE
        place.write_table((dataset.folder / dataset.manifest.quarantine).read_table())
        progress.say(f"{counted(dataset.manifest.quarantined, 'unusable row')} quarantined; see {place}")


def check_encoder(prepared: PreparedRun) -> None:
    """Find out now, not after ingest, that an encoder does not fit the data or that its weights cannot be had."""
    network = prepared.training.network
    if network is not None:
        if not network.whole_file:  # which has to fit classes that are not counted yet
            build_network(network, 2)
    elif prepared.config.encoder != "auto":
        spec = choose_encoder(prepared.config, prepared.source.kind, Work(0, 0)).spec
        if spec.kind != "features" and not _is_embedded(prepared, spec):
            load_encoder(spec, "cpu")


def _is_embedded(prepared: PreparedRun, spec: EncoderSpec) -> bool:
    """Whether an earlier run packed these images and stored their features."""
    dataset = PackedDataset.read(prepared.packed)
    specs = [dataclasses.replace(spec, back_end=name) for name in get_args(BackEnd)]
    return dataset is not None and any(_stored(prepared, dataset, one, None) is not None for one in specs)


def image_work(config: DetectConfig, rows: int, max_side: int, gray: bool, use_gpu: bool) -> Work:
    """What an encoder would have to do, on what there is."""
    images = round(rows * (1 + config.gamma))
    return Work(images, max_side, gray, resources().cpus, use_gpu, config.image_size)


def choose_encoder(config: DetectConfig, kind: Kind, work: Work) -> Choice:
    """The encoder that options and data ask for, and why if the user named none.

    Raises EncoderError for an unknown encoder, ConfigError when it does not fit the kind of data.
    """
    if config.encoder == "auto":
        return Choice(FEATURES, "") if kind == "feature" else choose(work)
    spec = parse_encoder(config.encoder, config.image_size)
    if (spec.kind == "features") != (kind == "feature"):
        wanted = "--encoder features (or auto)" if kind == "feature" else "an image encoder"
        got = f"--encoder {config.encoder}"
        raise ConfigError(expected_got(f"{wanted} for data that hold {kind}s", got, "change it or the data"))
    return Choice(spec, "")


def feature_store(
    prepared: PreparedRun,
    dataset: PackedDataset,
    spec: EncoderSpec,
    corruption: CorruptionConfig | None,
    use_gpu: bool,
    progress: Progress,
    encoder: Encoder | None = None,
) -> FeatureStore | None:
    """Embeddings of the images and of the copies (§4.2), made once per encoder; None for data that are features.

    encoder: the same as `spec`, where it is loaded already.
    """
    if spec.kind == "features":
        return None
    augmentation = _augmentation(prepared.config, spec)
    return embed(dataset, spec, corruption, augmentation, prepared.features, use_gpu, progress, encoder)


def _stored(
    prepared: PreparedRun, dataset: PackedDataset, spec: EncoderSpec, corruption: CorruptionConfig | None
) -> FeatureStore | None:
    """What `feature_store` would return, where all of it is there already."""
    return stored(dataset, spec, corruption, _augmentation(prepared.config, spec), prepared.features)


def _augmentation(config: DetectConfig, spec: EncoderSpec) -> str:
    """Of the copies' images."""
    if config.augmentation == "auto":
        return "none" if spec.kind == "pixels" else "flip"
    return config.augmentation


def image_rows(config: DetectConfig, dataset: PackedDataset, corruption: CorruptionConfig | None) -> TrainingRows:
    """What the network of `config` is trained on: images, and corrupted copies unless None (§4.2)."""
    augmentation = training_config(config).augmentation
    assert augmentation is not None
    kind = "none" if config.augmentation == "auto" else config.augmentation
    return rows_of_images(dataset, corruption, kind, augmentation.stored, config.plain_features)


def training_rows(
    dataset: PackedDataset, store: FeatureStore | None, corruption: CorruptionConfig | None, plain: bool
) -> TrainingRows:
    """What a classifier is trained on: features as given, or embeddings, and corrupted copies unless None (§4.2).

    plain: as in `rows_of_features`.
    """
    if store is None:
        return rows_of_features(dataset, corruption, plain)
    return rows_of_embeddings(store, dataset, corruption, plain)
