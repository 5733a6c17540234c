"""python -m dsfast.sim: one world by its seed, many by a range, or as many as fit into some minutes. 1 if any fails.

python -m dsfast.sim --seed 88 --profile storm     # one world; its story if it fails, and the smallest plan
python -m dsfast.sim --seeds 0:500 --profile all   # many
python -m dsfast.sim --minutes 10 --profile all    # as many as fit
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dsfast.proof.history import write
from dsfast.sim.hunt import hunt, tale
from dsfast.sim.profiles import DEFAULT, PROFILES
from dsfast.sim.world import Failure, World

ALL = "all"


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for; 1 if something was found."""
    args = _parser().parse_args(arguments)
    if args.seed is not None and args.profile != ALL:
        return _one(args)
    profiles = list(PROFILES) if args.profile == ALL else [args.profile]
    seeds = range(args.seed, args.seed + 1) if args.seed is not None else args.seeds
    found = hunt(seeds, args.first, profiles, args.minutes, _say)
    return 1 if found.failures else 0


def _one(args: argparse.Namespace) -> int:
    world = World(args.seed, args.profile, args.keep)
    try:
        world.run()
    except Failure as failure:
        _say(str(failure) if args.keep is not None else tale(args.seed, args.profile, failure))
        return 1
    finally:
        if args.history:
            Path(args.history).write_bytes(b"".join(write(world.checks.history)))
    if args.story:
        _say("\n".join(world.story.lines()))
    if args.digest:
        _say(world.digest())
    else:
        _say(f"seed {args.seed} ({args.profile}): {len(world.checks.history)} events, every promise was kept")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dsfast.sim", description="The cluster under a virtual clock.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--seed", type=int, help="one world")
    what.add_argument("--seeds", type=_range, metavar="A:B", help="the worlds A to B-1")
    what.add_argument("--minutes", type=float, default=0.0, help="as many worlds as fit into so many minutes")
    parser.add_argument("--profile", choices=[*PROFILES, ALL], default=DEFAULT, help=_about())
    parser.add_argument("--first", type=int, default=0, help="the seed that --minutes begins with")
    parser.add_argument("--keep", type=_places, help="with --seed: only these items of its plan, as 0,3,7 or none")
    parser.add_argument("--digest", action="store_true", help="with --seed: print a fingerprint of all that happened")
    parser.add_argument("--story", action="store_true", help="with --seed: print all that happened")
    parser.add_argument("--history", metavar="FILE", help="with --seed: write its history for python -m dsfast.proof")
    return parser


def _about() -> str:
    return "; ".join(f"{name}: {profile.about}" for name, profile in PROFILES.items())


def _range(text: str) -> range:
    first, _, last = text.partition(":")
    return range(int(first), int(last))


def _places(text: str) -> list[int]:
    return [] if text == "none" else [int(place) for place in text.split(",")]


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
