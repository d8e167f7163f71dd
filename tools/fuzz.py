"""Gives readers thousands of damaged inputs: `make fuzz`. Ends with a table, and exit status 1 on any finding."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from fuzz.driver import list_cases, run_fuzzer  # noqa: E402
from fuzz.names import KINDS  # noqa: E402


def main() -> None:
    """Reads the options, runs the inputs, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("inputs", nargs="?", type=int, default=5000, help="how many, over all kinds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=KINDS, choices=KINDS, metavar="KIND", help=", ".join(KINDS))
    told = parser.parse_args()
    began = time.monotonic()
    found = run_fuzzer(list_cases(told.kinds, told.inputs), told.seed)
    print(found.table())
    print(f"{told.inputs} inputs, {len(found.findings)} findings, seed {told.seed}, {time.monotonic() - began:.0f} s")
    sys.exit(1 if found.findings else 0)


if __name__ == "__main__":
    main()
