"""Judge histories: python -m dsfast.proof [--unseen-ends] FILE... (JSON lines by time); exit code 1: broken."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack

from dsfast.proof.checker import Broken, Checker
from dsfast.proof.history import merge, read


def main() -> int:
    """Read, judge, say so."""
    parser = argparse.ArgumentParser(prog="python -m dsfast.proof", description="Judge the history of a cluster.")
    parser.add_argument("file", nargs="+", help="a history: one JSON event a line, in order of time")
    parser.add_argument("--unseen-ends", action="store_true", help="processes may have ended without a line")
    args = parser.parse_args()
    checker = Checker(sees_ends=not args.unseen_ends)
    with ExitStack() as opened:
        histories = [read(opened.enter_context(open(name, "rb"))) for name in args.file]
        try:
            for event in merge(*histories):
                checker.take(event)
            checker.finish()
        except Broken as broken:
            sys.stdout.write(f"broken at event {checker.taken}: {broken}\n")
            return 1
    sys.stdout.write(f"{checker.taken} events of {len(checker.runs)} runs: every promise was kept\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
