"""Whether a file of decisions speaks of the dataset at hand."""

from __future__ import annotations

from lsi.data.samples import Samples
from lsi.errors import InputError
from lsi.results.marks import Mark
from lsi.run.manifest import fingerprint
from lsi.validation.problem import check_problem

_TASKS = ("classification", "regression", "multilabel")
_SHOWN = 12


def check_belongs(name: str, mark: Mark, samples: Samples, dataset: str, cure: str) -> None:
    """Refuse a file whose fingerprint is not that of the dataset.

    Files that come from `lsi compute` hold the fingerprint of the dataset as it was read. Where scores were
    made in Python, there is only that of the features and labels, which are then looked for in the dataset.
    """
    said = mark.dataset_fingerprint or mark.fingerprint
    if not said:
        raise InputError(f"{name} does not say which data it speaks of. {cure}")
    found = [samples.fingerprint()] if mark.dataset_fingerprint else scored_fingerprints(samples)
    if not found:
        raise InputError(
            f"{name} speaks of features that were scored (fingerprint {said[:_SHOWN]}…), and {dataset} holds "
            f"what they were made of, so that they cannot be compared. {cure}"
        )
    if said not in found:
        raise InputError(
            f"{name} speaks of other data than {dataset}: fingerprint {said[:_SHOWN]}… there, "
            f"{found[0][:_SHOWN]}… here. Use the dataset that was scored, unchanged and with the same "
            f"columns. {cure}"
        )


def scored_fingerprints(samples: Samples) -> list[str]:
    """Return the fingerprints that runs on these features and labels have; a run's task decides."""
    found = []
    for task in _TASKS if samples.features is not None else ():
        try:
            target = samples.labels if samples.targets is None else samples.targets
            found.append(
                fingerprint(check_problem(samples.features, target, sample_id=samples.ids, task=task))
            )
        except InputError:  # not a task for these labels
            continue
    return found
