"""Options of the commands, in the groups in which ``--help`` shows them.

Field names carry underscores; cyclopts accepts either spelling of a flag.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

Posterior = Literal["diag", "kron", "full", "kfac"]
Method = Literal["newton", "retrain"]
Optimizer = Literal["sgd", "adam", "sam", "dp-sgd"]
LearningRate = Literal["constant", "cosine", "step", "exponential"]
Task = Literal["classification", "binary", "multilabel", "regression"]
Several = Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="", show_default=False)]


@Parameter(name="*", group=Group("Data", sort_key=1))
@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """What is scored.

    Attributes:
        dataset: A name (`digits`, `wine`, `breast_cancer`, `diabetes`, `cifar10`, `cifar100`,
            `fashion_mnist`, `imagenette`, `imagewoof`), `hf:owner/name`, or a path: a folder with one
            sub-folder of images a class, a table (.parquet, .arrow, .csv, .jsonl), or arrays (.npz, .npy,
            .safetensors).
        data_dir: Folder of archives at hand, looked at before any download.
        split: `train` or `test`, where the data have both.
        label_column: Column of the labels (in a .npz: their name); lists: several labels a sample.
        label_columns: Columns of several targets or labels: zeros and ones, or numbers.
        clean_label_column: Column of labels known to be right: the difference counts as planted.
        id_column: Column of stable ids.
        image_column: Column of images: paths, or bytes.
        text_column: Column of texts.
        audio_column: Column of recordings: paths, or bytes.
        feature_columns: Columns of numbers. Default: all that are not named otherwise.
        labels: File of labels beside a .npy of features.
        standardise: Bring every feature to mean 0 and standard deviation 1 first.
        skip_broken: Leave out and count items that cannot be read, and rows without a label.
        active_classes: Use the samples with these labels only.
        first: Use the first so many samples only.
        subset: Score these samples only (the model still learns from all): a number drawn at random, as
            `500`; positions, as `0,7,12`; a range, as `100:200`. Default: all.
        range1: Score from this position on.
        range2: Score up to this position, which is not included; 0: the end.
    """

    dataset: Annotated[str, Parameter(name=["--dataset", "-d"])]
    data_dir: Annotated[Path | None, Parameter(name=["--data-dir", "--data-path"])] = None
    split: str | None = None
    label_column: str | None = None
    label_columns: Several = ()
    clean_label_column: str | None = None
    id_column: str | None = None
    image_column: str | None = None
    text_column: str | None = None
    audio_column: str | None = None
    feature_columns: Several = ()
    labels: Path | None = None
    standardise: Annotated[bool, Parameter(name=["--standardise", "--standardize"], negative="")] = False
    skip_broken: Annotated[bool, Parameter(negative="")] = False
    active_classes: Several = ()
    first: int | None = None
    subset: str | None = None
    range1: int | None = None
    range2: int | None = None


@Parameter(name="*", group=Group("Encoder", sort_key=2))
@dataclass(frozen=True, kw_only=True)
class EncoderOptions:
    """How images, texts and recordings become features.

    Attributes:
        encoder: A folder that `save_pretrained` wrote, a name on the Hugging Face hub, or `raw` for the
            pixels themselves. Default for images: `microsoft/resnet-18`.
        pooling: `auto`, `mean`, `cls`, `last`, `max` or `pooler`.
        precision: `auto` (float16 on a GPU, else float32), `float32`, `bfloat16` or `float16`.
        batch_size: Samples a forward pass.
        cache_dir: Folder for features and downloads. Default: `$LSI_CACHE`, else `~/.cache/lsi`.
    """

    encoder: str | None = None
    pooling: str = "auto"
    precision: str = "auto"
    batch_size: int | None = None
    cache_dir: Path | None = None


@Parameter(name="*", group=Group("Corruption on purpose", sort_key=3))
@dataclass(frozen=True, kw_only=True)
class CorruptionOptions:
    """What is changed on purpose, to measure how well LSI finds it.

    Attributes:
        corrupt_label: Change this share of the labels, as `0.1`.
        corrupt_kind: `symmetric`: to any other class; `pairwise`: to the class after its own.
        transition: File with a matrix of probabilities from label (row) to label (column), in place of
            a share.
        corrupt_data: Strength of noise on the data, in their standard deviations, as `0.1`; for texts, the
            share of lorem-like samples to add.
        corrupt_data_label: Labels of the classes that get this noise. Default: all.
        human_label_noise: Labels that people gave CIFAR's images: `aggregate` (or `True`), `worst`,
            `random1`, `random2`, `random3`; `noisy` for CIFAR-100.
        human_labels: Their file, CIFAR-10_human.pt or CIFAR-100_human.pt. Default: in `--data-dir`.
        corrupt_seed: Seed of these changes. Default: `--seed`.
    """

    corrupt_label: float | None = None
    corrupt_kind: Literal["symmetric", "pairwise"] = "symmetric"
    transition: Path | None = None
    corrupt_data: float | None = None
    corrupt_data_label: Several = ()
    human_label_noise: str | None = None
    human_labels: Annotated[Path | None, Parameter(name=["--human-labels", "--noisy-label-location"])] = None
    corrupt_seed: int | None = None


@Parameter(name="*", group=Group("Probe and posterior", sort_key=4))
@dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """What is trained, and how its weights' posterior is approximated.

    Attributes:
        task: `classification` (softmax), `binary` (one sigmoid for two classes), `multilabel` (a sigmoid a
            label), `regression` (ridge). Default: what the data say, else classification.
        noise_precision: Regression: one over the variance of the noise, or `estimate`. Default: 1.
        probe: `linear`, or `mlp`, a network. Default: linear, or mlp where `--hidden` is given.
        hidden: Widths of the network's hidden layers, as `--hidden 64 32`. Default: 32.
        activation: Of the network: `relu`, `tanh`, `gelu` or `sigmoid`.
        posterior_layers: Layers of the network that the posterior is over: `all`, or the `last` one.
        weight_decay: Strength of the penalty on the weights, on the scale of the mean loss.
        intercept: Whether the probe has an intercept.
        posterior: Structure of the posterior precision; `kfac` is another name of `kron`.
        prior_precision: Precision of the Gaussian prior in the posterior.
    """

    task: Task | None = None
    noise_precision: float | Literal["estimate"] | None = None
    probe: Literal["linear", "mlp"] | None = None
    hidden: Annotated[tuple[int, ...], Parameter(consume_multiple=True, negative="", show_default=False)] = ()
    activation: Literal["relu", "tanh", "gelu", "sigmoid"] | None = None
    posterior_layers: Literal["all", "last"] | None = None
    weight_decay: Annotated[float, Parameter(name=["--weight-decay", "--wd"])] = 1e-4
    intercept: Annotated[bool, Parameter(name="--intercept", negative="--no-intercept")] = True
    posterior: Annotated[Posterior, Parameter(name=["--posterior", "--laptype"])] = "diag"
    prior_precision: float = 1.0


@Parameter(name="*", group=Group("Pairs without labels", sort_key=4))
@dataclass(frozen=True, kw_only=True)
class PairOptions:
    """Two sides of a pair: two item columns, a .npz with `left` and `right`, or two views of each item.

    Attributes:
        text_encoder: Encoder of the text column, beside `--encoder` for the other one.
        encoder_2: Encoder of the right side; of one item column: its second view.
        augment: Second view of images: `crop` (the middle), `flip` (mirrored) or `grey`.
        mismatch: Exchange the partners of this share of the pairs on purpose, as `0.1`.
        dim: Dimension of the space that both heads project to.
        temperature: Of the contrastive loss.
        pull: Strength of the pull of the heads to their initial weights, on the scale of the mean loss.
        norm_floor: Length below which embeddings are not stretched to 1, relative to a fresh one.
        pair_batch: Compare a pair with so many only, in fixed batches. Default: with all.
    """

    text_encoder: str | None = None
    encoder_2: Annotated[str | None, Parameter(name="--encoder-2")] = None
    augment: Literal["crop", "flip", "grey"] | None = None
    mismatch: float | None = None
    dim: int = 32
    temperature: float = 0.2
    pull: float = 0.3
    norm_floor: float = 0.3
    pair_batch: int | None = None


@Parameter(name="*", group=Group("Leave-one-out", sort_key=5))
@dataclass(frozen=True, kw_only=True)
class MethodOptions:
    """How a model without a sample is found, and how the result is checked.

    Attributes:
        method: `newton` finds the optimum without each sample; `retrain` repeats the paper's stopped SGD.
            Default: newton, or retrain where one of its settings is given.
        tol: Newton: relative error up to which scores are refined; `none`: no refinement. Retrain: relative
            error that strides of many epochs may make; `none`: every epoch of every head.
        solver: Newton: `dense` (one inverse of the whole curvature), `blocks` (its class blocks, for many
            classes), or `auto`.
        epochs: Retrain: passes over the data.
        lr: Retrain: learning rate.
        momentum: Retrain: Nesterov momentum.
        n_seeds: Retrain: repetitions with other initial weights, whose mean is taken.
        optimizer: Retrain: `sgd`, `adam`, `sam` (sharpness-aware) or `dp-sgd` (differentially private).
        rho: SAM: length of the perturbation.
        noise_multiplier: DP-SGD: standard deviation of the noise, in units of the clipping norm.
        max_grad_norm: DP-SGD: norm to which each sample's gradient is clipped.
        schedule: Retrain: learning rate by epoch: `constant`, `cosine`, `step` or `exponential`.
        train_batch_size: Retrain: samples a step, in the order of the data. Default: all.
        record_every: Retrain: score after every so many epochs too.
        num_batches: Retrain: batches an epoch; only 1 (use `--train-batch-size` for more).
        audit: How many samples are left out again by brute force to check the result; `--no-audit`: none.
        label_noise: Estimate which labels are wrong, for `lsi mislabeled`. Default: where it is quick.
        seed: Seed of every random draw: audit, subset, corruption, initial weights of retrain.
    """

    method: Method | None = None
    tol: float | Literal["none"] | None = None
    solver: Literal["auto", "dense", "blocks"] | None = None
    epochs: int | None = None
    lr: float | None = None
    momentum: Annotated[float | None, Parameter(name=["--momentum", "--mom"])] = None
    n_seeds: int | None = None
    optimizer: Optimizer | None = None
    rho: float | None = None
    noise_multiplier: float | None = None
    max_grad_norm: float | None = None
    schedule: LearningRate | None = None
    train_batch_size: int | None = None
    record_every: int | None = None
    num_batches: int | None = None
    audit: Annotated[int | bool | None, Parameter(name="--audit", negative="--no-audit")] = None
    label_noise: Annotated[bool | None, Parameter(name="--label-noise", negative="--no-label-noise")] = None
    seed: int | None = None


@Parameter(name="*", group=Group("Output", sort_key=6))
@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Where results go.

    Attributes:
        output: Folder for the scores (Parquet and a manifest).
        report: HTML page to write; it needs no network.
        overwrite: Replace scores, or a foreign page, that are already there.
        json: Print one JSON object on stdout and nothing else there.
        quiet: Print errors only.
        redundancy: Find groups of samples that carry the same information, for the page and `lsi select`.
    """

    output: Annotated[Path | None, Parameter(name=["--output", "-o", "--save-dir"])] = None
    report: Path | None = None
    overwrite: Annotated[bool, Parameter(negative="")] = False
    json: Annotated[bool, Parameter(negative="")] = False
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], negative="")] = False
    redundancy: Annotated[bool, Parameter(negative="")] = False


@Parameter(name="*", group=Group("Long runs", sort_key=7))
@dataclass(frozen=True, kw_only=True)
class LongRunOptions:
    """How a run survives its end, and how it is divided.

    Attributes:
        checkpoint: Folder for finished blocks: the same command, started again after any end, goes on from
            them. Default: `OUTPUT.unfinished`, removed once the scores are written.
        no_checkpoint: Keep no finished blocks.
        shard: Score one of several parts, as `3/16`, the third of sixteen; `lsi merge` puts them together.
    """

    checkpoint: Path | None = None
    no_checkpoint: Annotated[bool, Parameter(negative="")] = False
    shard: str | None = None


@Parameter(name="*", group=Group("Machine", sort_key=8))
@dataclass(frozen=True, kw_only=True)
class MachineOptions:
    """What the computation runs on.

    Attributes:
        device: `cpu`, `cuda`, or any other torch device. Default: chosen by the library.
        threads: Processor threads to use. Default: torch's own choice.
        memory: What the run may use, such as `4GiB`. Default: what the machine has left.
        ray: Score on a Ray cluster: its address, as `host:6379`, `auto` for the one that this machine
            belongs to, or `local` for all processors of this machine. A worker takes `--threads`.
    """

    device: str | None = None
    threads: int | None = None
    memory: str | None = None
    ray: str | None = None
