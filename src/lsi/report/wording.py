"""Findings as sentences, for the page and the terminal."""

from __future__ import annotations

import math
from typing import Any

from lsi.analysis.label_noise import count_in_words, identified
from lsi.report.format import duration, number, percent
from lsi.system.text import counted, plain_text

SEPARATED = 0.999  # share of its own labels from which a probe separates the data
GROUP_FINDINGS = {
    "others": "these samples say what others say",
    "together": "worth more together than one by one",
    "single": "worth more one by one than together",
}
"""What stands out about a group, in words."""
_GROUP_VERBS = {
    "others": ("says what others say", "say what others say"),
    "together": ("is worth more together than one by one", "are worth more together than one by one"),
    "single": ("is worth more one by one than together", "are worth more one by one than together"),
}
_NAMED = 5  # groups that a sentence names
_TASKS = {
    "regression": " of a regression",
    "multilabel": " with several labels each",
    "contrastive": " of a contrastive run",
}


def sentences(summary: dict[str, Any]) -> dict[str, Any]:
    """Return every sentence that a report needs."""
    return {
        "scored": scored(summary),
        "spread": spread(summary["overview"]),
        "verdict": verdict(summary["audit"])[0],
        "audit": audit(summary["audit"]),
        "detection": detection(summary["detection"]),
        "suspects": suspects(summary),
        "noise": noise(summary),
        "top": top(summary["suspects"]),
        "redundancy": redundancy(summary),
        "groups": groups(summary["groups"]),
        "findings": GROUP_FINDINGS,
        "validation": validation(summary["validation"]),
        "curation": curation(summary["curation"]),
        "cost": cost(summary["run"]),
        "features": features(summary["feature_check"])[0],
        "weight_decay": weight_decay(summary["weight_decay"]),
    }


def scored(summary: dict[str, Any]) -> str:
    """Say what was scored and how long it took."""
    data, n = summary["run"]["data"], summary["overview"]["n_scored"]
    total = data["n_samples"] or n
    which = f"All {total:,}" if n == total else f"{n:,} of {total:,}"
    timings = summary["run"]["timings"]
    seconds = timings.get("total") or sum(timings.values())
    took = f" The computation took {duration(seconds)}." if seconds else ""
    classes, features = data["n_classes"], data["n_features"]
    what = _TASKS.get(summary["task"]) or (f" in {classes} classes" if classes else "")
    shape = f"{what}, with {counted(features, 'feature')}," if features else what
    return f"{which} samples{shape} were left out in turn to see what each one tells the model.{took}"


def spread(overview: dict[str, Any]) -> str:
    """Say how unevenly information is spread."""
    share = overview["share_of_top_tenth"]
    if share is None:
        return "No sample carries measurable information."
    return (
        f"Half of the samples carry less than {number(overview['median'])} nats; "
        f"the tenth with the highest values holds {percent(share)} of all the information."
    )


def verdict(audit: dict[str, Any] | None) -> tuple[str, str]:
    """Judge the audit in one line."""
    if not audit or not audit["n"]:
        return "This run was not audited.", "none"
    if audit["broken"]:
        return "Certificates of this run are broken.", "poor"
    rank, middle = audit["spearman"], audit["median_relative_error"]
    if rank is None or middle is None:
        return "The audit has too few distinct values to judge.", "none"
    if rank >= 0.99 and middle <= 0.02:
        return "The values and their order are computed right.", "good"
    if rank >= 0.95:
        return "The order is computed right; single values are approximate.", "fair"
    return "Treat these values with care: the approximation is rough here.", "poor"


def features(check: dict[str, Any] | None) -> tuple[str, str]:
    """Say whether the features know the target, and what to do if not."""
    if not check:
        return "", "none"
    what = "target" if "loo_r_squared" in check else "classes"
    verdict, level = {
        "good": (f"These features know your {what}", "good"),
        "part": (f"These features know your {what} only in part", "fair"),
        "none": (f"These features do not know your {what}", "poor"),
    }[check["verdict"]]
    low, high = (percent(end) for end in check["interval"])
    if what == "target":
        text = (
            f"{verdict}: without the sample, the model explains {percent(check['loo_r_squared'])} of the "
            f"variance ({low} to {high})."
        )
    else:
        text = (
            f"{verdict}: without the sample, the model names {percent(check['loo_accuracy'])} of the labels "
            f"({low} to {high}); the most frequent class alone is {percent(check['majority'])} of them."
        )
    return f"{text} {_remedy(check)}".rstrip(), level


def _remedy(check: dict[str, Any]) -> str:
    """Say what to do about features that know little, or about a probe that separates its own samples."""
    auto = "" if check["chosen_decay"] else "choose weight_decay='auto' (--weight-decay auto)"
    near, accuracy = check.get("neighbours_accuracy"), check.get("loo_accuracy")
    separated = (check["train_accuracy"] or 0.0) >= SEPARATED and check["linear"] and auto
    if check["verdict"] == "good":
        return (
            "The probe fits every sample it sees, so that more weight decay would be faster and usually "
            f"better: {auto}."
            if separated
            else ""
        )
    causes = "" if check["verdict"] == "part" else " The scores then say little about the samples."
    if near is not None and accuracy is not None and near > check["interval"][1]:
        cure = f"The ten nearest neighbours name {percent(near)}, so the probe is what is weak"
        steps = [auto, "bring the features to one scale (--standardise)"]
    else:
        cure = "" if near is None else f"The ten nearest neighbours name {percent(near)}"
        steps = [auto if separated else "", "take an encoder trained on such data", "check the labels"]
    listed = ", or ".join(step for step in steps if step)
    return f"{cure + ': ' if cure else ''}{listed if cure else listed[0].upper() + listed[1:]}.{causes}"


def weight_decay(found: dict[str, Any] | None) -> str:
    """Say which weight decay was chosen, and from what."""
    if not found:
        return ""
    curve, rows = found["curve"], found["n_samples"]
    best = max(value for _, value in curve)
    some = f", on {rows:,} of the rows" if rows else ""
    return (
        f"Weight decay {found['chosen']:g}: of {len(curve)} values from {curve[0][0]:g} to {curve[-1][0]:g}, "
        f"that of the highest leave-one-out likelihood ({best:.3f} nats a sample{some})."
    )


def audit(audit: dict[str, Any] | None) -> str:
    """Say what the audit did and measured."""
    if not audit or not audit["n"]:
        return "No sample was left out again by brute force to check the result."
    text = (
        f"{audit['n']} samples were left out again by brute force: half of them drawn at random, the "
        "others those of the highest scores and leverages, the largest corrections and the nearest "
        "neighbours. "
        f"Half of the reported values are within {percent(audit['median_relative_error'])} of the exact "
        f"ones, 95\u202f% within {percent(audit['p95_relative_error'])}, "
        f"the worst is off by {percent(audit['max_relative_error'])}."
    )
    if audit["spearman"] is not None:
        text += f" Rank correlation (Spearman): {correlation(audit['spearman'])}."
    if audit["trusts"]:
        text += f" Brute force trusts {audit['trusts']}."
    return f"{text} {audit['alarm']}".rstrip()


def detection(found: dict[str, Any] | None) -> str:
    """Say how well LSI finds the errors that are known."""
    if not found:
        return ""
    planted, hits = found["n_positive"], found["found_at_n_positive"]
    kind = (found.get("corruption") or {}).get("kind")
    what = f"{planted:,} labels were changed on purpose before training."
    if kind not in (None, "symmetric", "pairwise", "transition"):
        what = f"{planted:,} samples carry a known error ({plain_text(kind)})."
    return (
        f"{what} "
        f"Looking at the {planted:,} samples with the highest LSI finds {hits:,} of them "
        f"({percent(hits / planted)})."
    )


def correlation(value: float) -> str:
    """Return a correlation rounded down, so that only a perfect one reads as 1.

    Examples:
        >>> correlation(0.99999), correlation(1.0 - 1e-15)
        ('0.9999', '1.0000')
    """
    if not math.isfinite(value):  # of a manifest that was changed
        return "unknown"
    return f"{math.floor(value * 10_000 + 1e-6) / 10_000:.4f}"


def suspects(summary: dict[str, Any]) -> str:
    """Say how many labels look wrong, and how that was judged."""
    found, n = summary["suspects"], summary["overview"]["n_scored"]
    if not found:
        return ""
    if found["estimated"]:
        text = f"{found['n']:,} of {n:,} labels are more likely wrong than right."
    else:
        text = (
            f"For {found['n']:,} of {n:,} samples the model that never saw them gives the label less than "
            "even odds and prefers another one."
        )
    if found["n_wrong"] is not None:
        text += f" About {found['n_wrong']:,.0f} labels are estimated to be wrong in all."
        if found["interval"]:
            low, high = found["interval"]
            text = f"{text[:-1]}, between {low:,.0f} and {high:,.0f}. {identified(low, high)}".rstrip()
    return text


def noise(summary: dict[str, Any]) -> str:
    """Say how many targets, or samples of several labels, are estimated to be wrong."""
    found, task = summary["noise"], summary["task"]
    if not found:
        return ""
    low, high = found["interval"]
    count = count_in_words(found["n_wrong"], found["n"], (low, high), task)
    return f"{count}. {identified(low, high, task)}".rstrip()


def top(found: dict[str, Any] | None) -> list[str]:
    """Say how many of the most suspicious labels are expected to be wrong."""
    entries = found["top"] if found else []
    return [
        f"About {entry['wrong']:,.0f} of the top {entry['n']:,} are wrong"
        + (f" ({entry['low']:,.0f} to {entry['high']:,.0f})." if {"low", "high"} <= set(entry) else ".")
        for entry in entries
    ]


def redundancy(summary: dict[str, Any]) -> str:
    """Say how many samples can stand in for each other."""
    found, n = summary["redundancy"], summary["overview"]["n_scored"]
    if not found:
        return ""
    if not found["n_groups"]:
        return "No two samples carry the same information."
    groups = "1 group" if found["n_groups"] == 1 else f"{found['n_groups']:,} groups"
    return (
        f"{found['n_samples']:,} of {n:,} samples ({percent(found['n_samples'] / n)}) fall into {groups} "
        f"whose members carry the same information; the largest has {found['largest']:,} members."
    )


def groups(found: dict[str, Any] | None) -> str:
    """Say which groups are worth the most, and which say nothing of their own."""
    if not found:
        return ""
    rows, column = found["rows"], found["column"]
    named = f" of the column {plain_text(column, 60)}" if column else ""
    told = (
        f"Each of {counted(len(rows), 'group')}{named} was left out as a whole. A sample of group "
        f"{rows[0]['group']} is worth the most, {number(rows[0]['lsi_per_row'])} nats; the median over all "
        f"groups is {number(found['median'])}."
    )
    for finding, verb in _GROUP_VERBS.items():
        names = [row["group"] for row in rows if row["finding"] == finding]
        if names:
            few = 2 * len(names) <= len(rows)  # what holds for most groups tells none of them from the others
            shown = ", ".join(names[:_NAMED]) + (" and more" if len(names) > _NAMED else "")
            told += f" {len(names):,} of {len(rows):,} {verb[len(names) > 1]}{f': {shown}' if few else ''}."
    return told


def validation(found: dict[str, Any] | None) -> str:
    """Say how many validation rows are predicted wrongly, and what is shown of them."""
    if not found:
        return ""
    n, wrong, shown = found["n"], found["n_wrong"], len(found["rows"])
    told = f"{wrong:,} of {counted(n, 'validation row')} {'is' if wrong == 1 else 'are'} predicted wrongly"
    if not wrong:
        return f"{told}."
    which = "" if wrong == shown else f" Here are the {shown} of the highest loss."
    return (
        f"{told}.{which} Beside each are the training samples that spoke against its label the most: without "
        "that one sample, and the model trained again, its loss changes by the figure in bold."
    )


def curation(found: dict[str, Any] | None) -> str:
    """Say what the curation curves show."""
    if not found:
        return ""
    seeds = f", trained with {found['n_seeds']:,} seeds each" if found["n_seeds"] else ""
    return f"{plain_text(found['metric']).capitalize()} of a model trained on the part that is kept{seeds}."


def cost(run: dict[str, Any]) -> str:
    """Say where the time went."""
    stages = {name: seconds for name, seconds in run["timings"].items() if name != "total" and seconds}
    longest = sorted(stages, key=lambda name: -stages[name])[:3]
    spent = ", ".join(f"{plain_text(name)} {duration(stages[name])}" for name in longest)
    return " ".join(part for part in (f"Most time went into: {spent}." if spent else "", run["cost"]) if part)
