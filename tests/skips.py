"""Which tests may be skipped where everything is installed, and why: any other skip fails the run.

`pytest --no-skips` is what `.ci/run` calls, so that a package that went missing cannot hide what it tests.
"""

import re

ALLOWED = {
    r"needs --shared-data FOLDER": "real data and published values do not belong to the repository",
    r"the superuser may write into any folder": "machines that run it as root; a simulation is beside it",
    r"NumPy and SciPy use another BLAS": "only one and the same gives the same bits",
    r"long double is no wider than double here": "ARM and Windows have no wider one",
    r"this system or disk cannot exchange folders": "the journal, which is for them, is tested everywhere",
    r"SCIPY_ARRAY_API is not set": "scikit-learn checks arrays of other libraries only where it is set",
    r"no Chromium on this machine": "only where it cannot be installed: .ci/run does so as root on Debian",
}


def reason_of(report):
    """Return why a test or a module was skipped."""
    long = report.longrepr
    text = long[2] if isinstance(long, tuple) else str(long)
    return text.removeprefix("Skipped: ")


def unexpected(reports):
    """Return a line for each skip that is not allowed."""
    found = [(report.nodeid, reason_of(report)) for report in reports]
    return [
        f"{test}: {reason}" for test, reason in found if not any(re.search(one, reason) for one in ALLOWED)
    ]
