"""Options of the commands, in the groups in which ``--help`` shows them.

Field names carry underscores; cyclopts accepts either spelling of a flag.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

Posterior = Literal["diag", "kron", "full"]
Method = Literal["newton", "retrain"]


@Parameter(name="*", group=Group("Data", sort_key=1))
@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """What is scored.

    Attributes:
        dataset: `digits`, `wine`, `breast_cancer`, or the path of a .npz file that holds X and y
            (ids too, if you like).
        subset: Score these samples only (the model still learns from all): a number drawn at random, as
            `500`; positions, as `0,7,12`; a range, as `100:200`. Default: all.
        corrupt_label: Change this share of the labels on purpose, as `0.1`, and measure how well LSI finds
            them.
        corrupt_seed: Seed of that change. Default: `--seed`.
    """

    dataset: Annotated[str, Parameter(name=["--dataset", "-d"])]
    subset: str | None = None
    corrupt_label: float | None = None
    corrupt_seed: int | None = None


@Parameter(name="*", group=Group("Probe and posterior", sort_key=2))
@dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """What is trained, and how its weights' posterior is approximated.

    Attributes:
        weight_decay: Strength of the penalty on the weights, on the scale of the mean loss.
        intercept: Whether the probe has an intercept.
        posterior: Structure of the posterior precision.
        prior_precision: Precision of the Gaussian prior in the posterior.
    """

    weight_decay: float = 1e-4
    intercept: Annotated[bool, Parameter(name="--intercept", negative="--no-intercept")] = True
    posterior: Posterior = "diag"
    prior_precision: float = 1.0


@Parameter(name="*", group=Group("Leave-one-out", sort_key=3))
@dataclass(frozen=True, kw_only=True)
class MethodOptions:
    """How a model without a sample is found, and how the result is checked.

    Attributes:
        method: `newton` finds the optimum without each sample; `retrain` repeats the paper's stopped SGD.
            Default: newton, or retrain where one of its settings is given.
        tol: Newton: relative error up to which scores are refined; `none`: no refinement.
        epochs: Retrain: passes over the data.
        lr: Retrain: learning rate.
        momentum: Retrain: Nesterov momentum.
        audit: How many samples are left out again by brute force to check the result; `--no-audit`: none.
        seed: Seed of every random draw: audit, subset, corruption, initial weights of retrain.
    """

    method: Method | None = None
    tol: float | Literal["none"] | None = None
    epochs: int | None = None
    lr: float | None = None
    momentum: float | None = None
    audit: Annotated[int | bool | None, Parameter(name="--audit", negative="--no-audit")] = None
    seed: int | None = None


@Parameter(name="*", group=Group("Output", sort_key=4))
@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Where results go.

    Attributes:
        output: Folder for the scores (Parquet and a manifest).
        report: HTML page to write; it needs no network.
        overwrite: Replace scores, or a foreign page, that are already there.
        json: Print one JSON object on stdout and nothing else there.
        quiet: Print errors only.
    """

    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None
    report: Path | None = None
    overwrite: Annotated[bool, Parameter(negative="")] = False
    json: Annotated[bool, Parameter(negative="")] = False
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], negative="")] = False


@Parameter(name="*", group=Group("Machine", sort_key=5))
@dataclass(frozen=True, kw_only=True)
class MachineOptions:
    """What the computation runs on.

    Attributes:
        device: `cpu`, `cuda`, or any other torch device. Default: chosen by the library.
        threads: Processor threads to use. Default: torch's own choice.
    """

    device: str | None = None
    threads: int | None = None
