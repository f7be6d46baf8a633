"""Pairs on the command line: two columns, two arrays, or two views of the same items; no labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lsi.cli.inputs.gather import source_options
from lsi.cli.inputs.options import (
    CorruptionOptions,
    DataOptions,
    EncoderOptions,
    MachineOptions,
    MethodOptions,
    OutputOptions,
    PairOptions,
    ProbeOptions,
)
from lsi.cli.inputs.settings import audit_size, build_method, seed_of, subset_text, use_machine
from lsi.errors import InputError
from lsi.system.progress import Progress

if TYPE_CHECKING:
    import numpy as np

    from lsi.data import Samples
    from lsi.data.pairs import PairSource
    from lsi.execution.checkpoint import Checkpoint
    from lsi.scores import Scores

_SHARED_DECAY = ProbeOptions().weight_decay


def wants_pairs(data: DataOptions, pairs: PairOptions) -> bool:
    """Tell whether the options ask for pairs: two item columns, two views, or a ``.npz`` that holds pairs."""
    columns = sum(name is not None for name in (data.image_column, data.text_column, data.audio_column))
    if columns > 1 or pairs.encoder_2 or pairs.text_encoder or pairs.augment:
        return True
    if not data.dataset.lower().endswith(".npz"):
        return False
    from lsi.data.pairs import holds_pairs

    return holds_pairs(data.dataset)


def score_the_pairs(
    data: DataOptions,
    encoder: EncoderOptions,
    corruption: CorruptionOptions,
    probe: ProbeOptions,
    pairs: PairOptions,
    method: MethodOptions,
    machine: MachineOptions,
    output: OutputOptions,
    checkpoint: Checkpoint | None = None,
) -> tuple[Scores, Samples]:
    """Check, load, encode and score pairs."""
    import lsi
    from lsi.cli.console import say
    from lsi.cli.progress import progress_bar
    from lsi.data import parse_subset
    from lsi.data.pairs import load_pairs
    from lsi.pipeline import check_settings
    from lsi.tasks import task_of

    settings = _settings(corruption, probe, pairs, method)
    names = ("probe", "posterior", "method", "prior_precision", "audit")
    check_settings(*(settings[name] for name in names))
    use_machine(machine)
    tell: Callable[[str], None] = (lambda text: None) if output.quiet else say
    with progress_bar(output.quiet) as progress:
        source = load_pairs(data.dataset, source_options(data, encoder, progress))
        left, right, samples, extra = _features(source, data, encoder, pairs, machine, progress, tell)
        right, moved = _mismatched(right, pairs.mismatch, settings["seed"])
        if moved is not None:
            tell(f"{int((moved != _identity(moved)).sum()):,} pairs were mismatched on purpose")
        wanted = subset_text(data, len(samples))
        strata = _identity(left[:, 0]) * 0
        subset = None if wanted is None else parse_subset(wanted, strata, settings["seed"])
        task_of(settings["probe"]).problem(left, right, subset=subset, sample_id=samples.ids)
        tell(f"{samples.name}: {len(left):,} pairs, {left.shape[1]} and {right.shape[1]} features, no labels")
        scores = lsi.score_pairs(
            left,
            right,
            **settings,
            subset=subset,
            sample_id=samples.ids,
            checkpoint=checkpoint,
            cluster=machine.ray,
            progress=progress,
        )
    if checkpoint is not None:
        extra = {**extra, "run": checkpoint.run}
    return _annotated(scores, samples, moved, extra), samples


def _settings(
    corruption: CorruptionOptions, probe: ProbeOptions, pairs: PairOptions, method: MethodOptions
) -> dict[str, Any]:
    """Return the arguments of `lsi.score_pairs` apart from the data."""
    from lsi import ContrastiveProbe

    if corruption != CorruptionOptions():
        raise InputError("pairs have no labels to corrupt. Use --mismatch 0.1 to exchange partners instead.")
    if probe.weight_decay != _SHARED_DECAY:
        raise InputError(
            "--weight-decay is for probes with labels. Use --pull for the pull of both heads to their start."
        )
    seed = seed_of(method.seed, "--seed")
    heads = ContrastiveProbe(
        dim=pairs.dim,
        temperature=pairs.temperature,
        weight_decay=pairs.pull,
        norm_floor=pairs.norm_floor,
        batch_size=pairs.pair_batch,
        seed=seed,
    )
    return {
        "probe": heads,
        "posterior": "kron" if probe.posterior == "kfac" else probe.posterior,
        "method": build_method(method),
        "prior_precision": probe.prior_precision,
        "audit": audit_size(method.audit),
        "seed": seed,
    }


def _features(
    source: PairSource,
    data: DataOptions,
    encoder: EncoderOptions,
    pairs: PairOptions,
    machine: MachineOptions,
    progress: Progress | None,
    tell: Callable[[str], None],
) -> tuple[np.ndarray, np.ndarray, Samples, dict[str, Any]]:
    """Return both sides' features, the left samples, and what the manifest should know."""
    import numpy as np

    from lsi.data.pairs import augmented
    from lsi.features import FeatureCache, build_encoder, encode

    if source.left.features is not None and source.right is not source.left:
        if source.right.features is None or encoder.encoder or pairs.encoder_2 or pairs.text_encoder:
            raise InputError(
                f"{source.left.name} holds features: there is nothing to encode. Drop --encoder."
            )
        return source.left.features, source.right.features, source.left, {}
    one, other = source.left.items, source.right.items
    if one is None or other is None:
        raise InputError(
            f"{source.left.name} holds features, and two views need images, texts or recordings."
        )
    if pairs.augment:
        other = augmented(other, pairs.augment)
    names = _encoders(one.kind, other.kind, encoder.encoder, pairs, source.left is source.right)
    cache, made, records = FeatureCache(encoder.cache_dir), [], []
    for items, name in zip((one, other), names, strict=True):
        chosen = build_encoder(
            items.kind, name, pooling=encoder.pooling, precision=encoder.precision,
            device=machine.device, batch_size=encoder.batch_size,
        )  # fmt: skip
        tell(f"encoding {len(items):,} {items.kind} items with {chosen.name}")
        made.append(
            encode(
                items,
                chosen,
                cache,
                skip_broken=data.skip_broken,
                name=source.left.name,
                cluster=machine.ray,
                progress=progress,
            )
        )
        records.append(made[-1].record)
    broken = sorted({*made[0].broken, *made[1].broken})
    kept = np.setdiff1d(np.arange(len(one)), broken)
    extra: dict[str, Any] = {"encoder": records[0], "encoder_right": records[1]}
    if broken:
        extra["left_out"] = {"n": len(broken), "items": [one.describe(i) for i in broken[:20]]}
        tell(f"{len(broken):,} pairs with an item that cannot be read were left out")
    samples = source.left.select(kept) if broken else source.left
    return made[0].features[kept], made[1].features[kept], samples, extra


def _encoders(
    left: str, right: str, first: str | None, pairs: PairOptions, one_view: bool
) -> tuple[str | None, str | None]:
    """Return the encoders' names of both sides."""
    if pairs.text_encoder and "text" not in (left, right):
        raise InputError("--text-encoder needs a --text-column.")
    if one_view:
        second = pairs.encoder_2 or (first if pairs.augment else None)
        if not pairs.augment and (second is None or second == first):
            raise InputError("two views of the same items need --encoder-2 (another one), or --augment.")
        return first, second
    second = pairs.encoder_2 or (pairs.text_encoder if right == "text" else None)
    return (pairs.text_encoder if left == "text" else first), second


def _identity(values: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.arange(len(values))


def _mismatched(right: np.ndarray, share: float | None, seed: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Exchange the partners of a share of the pairs in a ring; return where each right item came from."""
    import numpy as np

    if share is None:
        return right, None
    count = round(share * len(right))
    if not 0 < share <= 1 or count < 2:
        raise InputError(
            f"--mismatch {share} of {len(right)} pairs: choose a share up to 1 of at least 2 pairs."
        )
    chosen = np.random.default_rng(seed).choice(len(right), count, replace=False)
    origin = np.arange(len(right))
    origin[chosen] = np.roll(chosen, 1)
    return right[origin], origin


def _annotated(scores: Scores, samples: Samples, origin: np.ndarray | None, extra: dict[str, Any]) -> Scores:
    """Add what only the command knows: the source, the encoders, and which pairs were mismatched."""
    import numpy as np

    from lsi.scores import Scores

    table, manifest = scores.to_frame(), {**scores.manifest, **extra}
    manifest["source"] = {**samples.source, "description": samples.description}
    if "encoder" in extra:
        seconds = extra["encoder"]["seconds"] + extra["encoder_right"]["seconds"]
        manifest["timings"] = {"encode": seconds, **manifest["timings"]}
    if origin is not None:
        positions = table["position"].to_numpy()
        table["corrupted"] = origin[positions] != positions
        table["original_label"] = np.asarray(samples.ids)[np.argsort(origin)][positions]
        count = int((origin != np.arange(len(origin))).sum())
        manifest["corruption"] = {"kind": "mismatched pairs", "n_corrupted": count}
    return Scores(table, manifest, scores.audit)
