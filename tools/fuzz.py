"""Gives readers thousands of damaged inputs: `make fuzz`. Ends with a table, and exit status 1 on any finding."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from fuzz.driver import list_cases, run_fuzzer
from fuzz.names import KINDS


def main() -> None:
    """Reads the options, runs the inputs, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("inputs", nargs="?", type=int, default=5000, help="how many, over all kinds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=KINDS, choices=KINDS, metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--only", type=int, metavar="N", help="the N-th input of each kind alone, as the table says it")
    told = parser.parse_args()
    began = time.monotonic()
    cases = list_cases(told.kinds, told.inputs) if told.only is None else [(kind, told.only) for kind in told.kinds]
    found = run_fuzzer(cases, told.seed)
    print(found.table())
    print(f"{len(cases)} inputs, {len(found.findings)} findings, seed {told.seed}, {time.monotonic() - began:.0f} s")
    sys.exit(1 if found.findings else 0)


if __name__ == "__main__":
    main()
