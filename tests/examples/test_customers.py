"""The example of a customer table: it runs as it stands, and finds what was flipped."""

import runpy
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "examples" / "customers.py"


def test_the_example_finds_most_of_the_flipped_labels(tmp_path, capsys):
    runpy.run_path(str(SCRIPT))["main"](tmp_path)
    last = capsys.readouterr().out.splitlines()[-1]
    found, flipped = int(last.split()[0]), int(last.split()[3])
    assert flipped == 48
    assert found > flipped / 2  # 3 of them would be there by chance
    assert (tmp_path / "customers.csv").is_file()
