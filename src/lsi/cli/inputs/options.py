"""Options of the commands, in the groups that ``--help`` shows.

Flags may be spelt with hyphens or with the underscores of the field names.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

COMMON = Parameter(show=True)
"""Marks an option of `lsi compute` that most people need, with an example in its text. `--help` shows these,
`--help-all` shows every one: an option that is not marked is among all of them only."""
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
            `fashion_mnist`, `imagenette`, `imagewoof`), `hf:owner/name`, or a path: a folder with
            one sub-folder of images for each class, a table (.parquet, .arrow, .csv, .tsv, .jsonl), or arrays
            (.npz, .npy, .safetensors). Example: `--dataset photos/`.
        data_dir: Folder of archives, searched before anything is downloaded.
        split: `train` or `test`, where the dataset has both.
        label_column: Column of the labels; in a .npz, the name of their array. It may hold lists of labels.
            Example: `--label-column species`.
        label_columns: Columns of labels (zeros and ones) or targets (numbers), where a sample has several.
        annotators: The columns of `--label-columns` are annotators who labelled the same samples, with gaps;
            the label is their consensus.
        clean_label_column: Column of labels known to be right: labels that differ count as planted errors.
        id_column: Column of ids that stay the same from run to run. Example: `--id-column customer`.
        group_column: Column of groups of samples, such as patients, annotators or suppliers: each whole group
            is left out as well, to see what it is worth. It is no feature. Example: `--group-column patient`.
        image_column: Column of images: paths or bytes. Example: `--image-column file`.
        text_column: Column of texts. Example: `--text-column review`.
        audio_column: Column of recordings: paths or bytes.
        feature_columns: Columns to make features of. Default: all columns without another role.
        prepare: Make features of the columns of a table: numbers scaled, missing values filled in, categories
            and dates encoded. `--no-prepare`: take its numbers as they are, and refuse missing values.
        labels: File with the labels of a .npy of features.
        standardise: Scale every feature to mean 0 and standard deviation 1 first.
        pca: Score in this many principal components of the features, of an encoder or as given; `auto`: as
            many as hold 90 % of the variance.
        skip_broken: Leave out items that cannot be read and rows without a label, instead of stopping there.
        active_classes: Use only the samples with these labels.
        first: Use only this many samples, from the start of the dataset. Example: `--first 500`.
        subset: Score only some samples; the model still learns from all of them. `500`: that many, drawn at
            random; `0,7,12`: these positions; `100:200`: this range. Default: all.
        range1: First position to score.
        range2: Position to stop before; 0: score to the end.
    """

    dataset: Annotated[str, COMMON, Parameter(name=["--dataset", "-d"])]
    data_dir: Annotated[Path | None, Parameter(name=["--data-dir", "--data-path"])] = None
    split: str | None = None
    label_column: Annotated[str | None, COMMON] = None
    label_columns: Several = ()
    annotators: Annotated[bool, Parameter(negative="")] = False
    clean_label_column: str | None = None
    id_column: Annotated[str | None, COMMON] = None
    group_column: Annotated[str | None, COMMON] = None
    image_column: Annotated[str | None, COMMON] = None
    text_column: Annotated[str | None, COMMON] = None
    audio_column: str | None = None
    feature_columns: Several = ()
    prepare: Annotated[bool, Parameter(name="--prepare", negative="--no-prepare")] = True
    labels: Path | None = None
    standardise: Annotated[bool, Parameter(name=["--standardise", "--standardize"], negative="")] = False
    pca: int | Literal["auto"] | None = None
    skip_broken: Annotated[bool, COMMON, Parameter(negative="")] = False
    active_classes: Several = ()
    first: Annotated[int | None, COMMON] = None
    subset: str | None = None
    range1: int | None = None
    range2: int | None = None


@Parameter(name="*", group=Group("Data", sort_key=1))
@dataclass(frozen=True, kw_only=True)
class ListedData(DataOptions):
    """How a dataset is read; not for scores, which say it themselves."""

    dataset: Annotated[str, Parameter(parse=False)] = ""


@Parameter(name="*", group=Group("Encoder", sort_key=2))
@dataclass(frozen=True, kw_only=True)
class EncoderOptions:
    """How images, texts and recordings become features.

    Attributes:
        encoder: A name on the Hugging Face hub; a folder that `save_pretrained` or timm wrote; an ONNX file;
            `ARCHITECTURE:weights.pt` for weights of a network that timm knows; `module:function` for your own
            function; or `raw` for the pixels themselves. Default for images: `facebook/dinov2-small`.
            Example: `--encoder raw`.
        pooling: How a network's tokens or positions become one vector: `auto`, `mean`, `cls`, `last`, `max`
            or `pooler`.
        precision: `auto` (float16 on a GPU, else float32), `float32`, `bfloat16` or `float16`.
        batch_size: Samples in each forward pass. Default: 32, and 8 for recordings.
        cache_dir: Folder for features and downloads. Default: `$LSI_CACHE`, else `~/.cache/lsi`.
    """

    encoder: Annotated[str | None, COMMON] = None
    pooling: str = "auto"
    precision: str = "auto"
    batch_size: int | None = None
    cache_dir: Path | None = None


@Parameter(name="*", group=Group("Corruption on purpose", sort_key=3))
@dataclass(frozen=True, kw_only=True)
class CorruptionOptions:
    """What is changed on purpose, to measure how well LSI finds it.

    Attributes:
        corrupt_label: Change this share of the labels on purpose. Example: `--corrupt-label 0.1`.
        corrupt_kind: `symmetric`: to any other class; `pairwise`: to the class that follows its own.
        transition: File with a matrix of probabilities from each label (row) to each label (column), instead
            of a share.
        corrupt_data: Strength of the noise on images or features, in standard deviations of the data, as
            `0.1`; for texts, the share of meaningless (lorem ipsum) samples to add.
        corrupt_data_label: Classes that get this noise. Default: all.
        human_label_noise: Use the labels that people gave to CIFAR's images: `aggregate` (or `True`),
            `worst`, `random1`, `random2`, `random3`; `noisy` for CIFAR-100.
        human_labels: File of these labels, CIFAR-10_human.pt or CIFAR-100_human.pt. Default: in `--data-dir`.
        corrupt_seed: Seed for these changes. Default: `--seed`.
    """

    corrupt_label: Annotated[float | None, COMMON] = None
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
    """What is trained, and how the posterior of its weights is approximated.

    Attributes:
        task: `classification` (softmax), `binary` (one sigmoid for two classes), `multilabel` (one sigmoid
            for each label), `regression` (ridge). Default: what the data suggest, else classification.
        noise_precision: Regression: 1 / variance of the noise, or `estimate`. Default: 1.
        probe: `linear`, or `mlp` (a network). Default: mlp where `--hidden` is given, else linear.
        hidden: Network: widths of the hidden layers, as `--hidden 64 32`. Default: 32.
        activation: Network: `relu`, `tanh`, `gelu` or `sigmoid`. Default: relu.
        posterior_layers: Network: the posterior covers the weights of `all` layers, or of the `last` one.
        weight_decay: Strength of the penalty on the weights, relative to the mean loss; `auto`: that of the
            highest leave-one-out likelihood (not for networks). Example: `--weight-decay auto`.
        intercept: Whether the probe has an intercept.
        posterior: Structure of the posterior precision; `kfac` is another name for `kron`.
        prior_precision: Precision of the Gaussian prior in the posterior.
    """

    task: Task | None = None
    noise_precision: float | Literal["estimate"] | None = None
    probe: Literal["linear", "mlp"] | None = None
    hidden: Annotated[tuple[int, ...], Parameter(consume_multiple=True, negative="", show_default=False)] = ()
    activation: Literal["relu", "tanh", "gelu", "sigmoid"] | None = None
    posterior_layers: Literal["all", "last"] | None = None
    weight_decay: Annotated[float | Literal["auto"], COMMON, Parameter(name=["--weight-decay", "--wd"])] = (
        1e-4
    )
    intercept: Annotated[bool, Parameter(name="--intercept", negative="--no-intercept")] = True
    posterior: Annotated[Posterior, Parameter(name=["--posterior", "--laptype"])] = "diag"
    prior_precision: float = 1.0


@Parameter(name="*", group=Group("Pairs without labels", sort_key=4))
@dataclass(frozen=True, kw_only=True)
class PairOptions:
    """Pairs: two columns of items, a .npz with `left` and `right`, or two views of each item.

    Attributes:
        text_encoder: Encoder of the text column; `--encoder` is then for the other column.
        encoder_2: Encoder of the right side, or of the second view where there is one column of items.
        augment: Second view of images: `crop` (the middle), `flip` (mirrored) or `grey`.
        mismatch: Exchange partners on purpose in this share of the pairs, as `0.1`.
        dim: Dimension of the space that both heads project to.
        temperature: Temperature of the contrastive loss.
        pull: Strength of the pull of the heads towards their initial weights, relative to the mean loss.
        norm_floor: Embeddings shorter than this share of their usual initial length are not stretched to 1.
        pair_batch: Compare each pair only with those of its batch, of this size. Default: with all pairs.
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
            Default: retrain where one of its settings is given, else newton.
        tol: Newton: scores are refined until their relative error is at most this; `none`: no refinement.
            Retrain: relative error allowed for strides of many epochs; `none`: compute every epoch.
        solver: Newton: `dense` (the inverse of the whole curvature), `blocks` (its class blocks, for many
            classes), or `auto`.
        epochs: Retrain: passes over the data.
        lr: Retrain: learning rate.
        momentum: Retrain: Nesterov momentum.
        n_seeds: Retrain: number of repetitions with other initial weights; scores are their means.
        optimizer: Retrain: `sgd`, `adam`, `sam` (sharpness-aware) or `dp-sgd` (differentially private).
        rho: SAM: length of the perturbation.
        noise_multiplier: DP-SGD: standard deviation of the noise, as a multiple of the clipping norm.
        max_grad_norm: DP-SGD: norm to which each sample's gradient is clipped.
        schedule: Retrain: how the learning rate changes over the epochs: `constant`, `cosine`, `step` or
            `exponential`.
        train_batch_size: Retrain: samples in each step, in the order of the data. Default: all.
        record_every: Retrain: also score during training, each time after this many epochs.
        num_batches: Retrain: batches in each epoch; only 1 is possible (for more: `--train-batch-size`).
        audit: Number of samples left out again by brute force, to check the result; `--no-audit`: none.
        label_noise: Estimate which labels are wrong, for `lsi mislabeled`. Default: where that is quick.
        seed: Seed for everything random: audit, subset, corruption, initial weights of retrain.
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
        output: Folder for the scores (Parquet and a manifest). Example: `--output scores/`.
        report: HTML page to write; it can be read without a network. Example: `--report report.html`.
        overwrite: Replace scores that are already there, and a page that lsi did not write.
        json: Print one JSON object on stdout and nothing else there.
        quiet: Print errors only.
        redundancy: Find groups of samples that carry the same information, for the page and `lsi select`.
    """

    output: Annotated[Path | None, COMMON, Parameter(name=["--output", "-o", "--save-dir"])] = None
    report: Annotated[Path | None, COMMON] = None
    overwrite: Annotated[bool, COMMON, Parameter(negative="")] = False
    json: Annotated[bool, Parameter(negative="")] = False
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], negative="")] = False
    redundancy: Annotated[bool, Parameter(negative="")] = False


@Parameter(name="*", group=Group("Long runs", sort_key=7))
@dataclass(frozen=True, kw_only=True)
class LongRunOptions:
    """How a run survives an interruption, and how it is divided.

    Attributes:
        checkpoint: Folder for finished blocks, from which the same command goes on after any interruption.
            Default: `OUTPUT.unfinished`, removed once the scores are written.
        no_checkpoint: Do not keep finished blocks.
        shard: Score one of several parts, as `3/16`, the third of sixteen; `lsi merge` puts them together.
    """

    checkpoint: Path | None = None
    no_checkpoint: Annotated[bool, Parameter(negative="")] = False
    shard: str | None = None


@Parameter(name="*", group=Group("Options from a file", sort_key=9))
@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """Where options are read from.

    Attributes:
        config: File of options that `lsi init` wrote; those of the command line go before them. Default:
            `lsi.toml`, where the current folder has one. Example: `--config photos.toml`.
    """

    config: Annotated[Path | None, COMMON] = None


@Parameter(name="*", group=Group("Machine", sort_key=8))
@dataclass(frozen=True, kw_only=True)
class MachineOptions:
    """What the computation runs on.

    Attributes:
        device: `cpu`, `cuda`, or any other torch device. Default: a GPU where there is one, else `cpu`.
        threads: Processor threads to use. Default: what torch chooses.
        memory: Memory that the run may use, as `4GiB`. Default: what the machine has available.
        ray: Score on a Ray cluster: its address, as `host:6379`; `auto` for the one that this machine belongs
            to; `local` for all processors of this machine. Each worker uses `--threads` threads.
    """

    device: str | None = None
    threads: int | None = None
    memory: str | None = None
    ray: str | None = None


@Parameter(name="*", group=Group("The dataset, where it is not read as when it was scored", sort_key=10))
@dataclass(frozen=True, kw_only=True)
class AgainOptions:
    """How a dataset is read that has been scored: by `lsi report` and `lsi apply`, in the same way.

    Attributes:
        id_column: Column of ids. Default: as when the data were scored.
        label_column: Column of the labels. Default: as when the data were scored.
        image_column: Column of images. Default: as when the data were scored.
        text_column: Column of texts. Default: as when the data were scored.
        audio_column: Column of recordings. Default: as when the data were scored.
        labels: File with the labels of a .npy of features.
        ids_only: The dataset holds the scored samples in another form, such as the pictures that features
            were made of: match them by id. `lsi apply` still compares the labels.
    """

    id_column: str | None = None
    label_column: str | None = None
    image_column: str | None = None
    text_column: str | None = None
    audio_column: str | None = None
    labels: Path | None = None
    ids_only: Annotated[bool, Parameter(negative="")] = False

    def columns(self) -> dict[str, str]:
        """Return the columns that were named."""
        named = {name: getattr(self, name) for name in vars(self) if name.endswith("_column")}
        return {name: column for name, column in named.items() if column is not None}

    def words(self) -> list[str]:
        """Return the options as one would type them."""
        words = [word for name, column in self.columns().items() for word in (_flag(name), column)]
        words += [] if self.labels is None else ["--labels", str(self.labels)]
        return [*words, "--ids-only"] if self.ids_only else words


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


OTHER_FORM = (
    "If the same samples were scored in another form, add --ids-only: then only ids and labels are checked."
)
"""What helps where a dataset is not the one that was scored."""
