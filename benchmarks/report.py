"""The report of 50,000 samples in 100 classes: size of the file, and time until it can be used.

    python -m benchmarks.report [--output FILE.json]

The scores are drawn at random; ids are paths of files, pictures have 32 × 32 pixels. The page is opened in
the system's Chromium (extra ``browser``), from an empty profile each time.
"""

import tempfile
import time
from pathlib import Path

from tests.report.browser import chromium, why_not
from tests.report.made_up import made_up_samples, made_up_scores

from benchmarks.common import parser, write
from lsi.report import write_report

TARGET_BYTES, TARGET_SECONDS = 8_000_000, 2.0


def opened(path, rounds=3):
    """Return the best time from navigation to a page that answers, in seconds."""
    times = []
    with chromium() as browser:
        for _ in range(rounds):
            page = browser.new_context().new_page()
            page.goto(path.as_uri())
            times.append(page.evaluate("performance.getEntriesByName('lsi-ready')[0].startTime") / 1000)
            page.close()
    return min(times)


def measure(n, n_classes, folder):
    scores = made_up_scores(n, n_classes)
    samples = made_up_samples(scores)
    began = time.perf_counter()
    path = write_report(folder / f"report-{n}.html", scores, samples)
    row = {"samples": n, "classes": n_classes, "write (s)": time.perf_counter() - began}
    row["file (MB)"] = path.stat().st_size / 1e6
    return row | {"ready (s)": None if why_not() else opened(path)}


def main():
    options = parser(__doc__.splitlines()[0]).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(n, 100, Path(folder)) for n in (1_000, 10_000, 50_000)]
    facts = {"targets": f"{TARGET_BYTES / 1e6:.0f} MB and {TARGET_SECONDS:.0f} s at 50,000 samples"}
    if why_not():
        facts["not opened"] = why_not()
    write(
        "Report", rows, ["samples", "classes", "write (s)", "file (MB)", "ready (s)"], facts, options.output
    )


if __name__ == "__main__":
    main()
