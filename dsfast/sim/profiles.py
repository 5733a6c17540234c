"""What kinds of trouble a world may have. The names of faults are those of `faults.STRIKES`."""

from __future__ import annotations

from dataclasses import dataclass

CRASHES = ("crash_master", "crash_mid_send", "crash_mid_commit", "crash_worker", "power_off", "restart_at_once")
BLACKOUT = ("crash_all_masters",)
NETWORK = ("cut", "block", "block_one_way", "isolate_worker", "isolate_master", "slow_network")
STORE = ("fail_store", "lose_answers", "slow_store")
REGISTRY = ("expire_worker", "expire_master", "lose_registry", "lose_registry_for_all", "stale_view", "flap", "wipe")
PAUSES = ("pause_worker", "pause_master", "pause_mid_send", "pause_mid_commit", "suspend_worker", "suspend_all")
CLOCKS = ("jump_clock",)
SPLIT = ("split_brain",)
DRAIN = ("drain",)


@dataclass(frozen=True, slots=True)
class Profile:
    """A kind of world: which faults, how many of them, and how good its machines and clocks are."""

    about: str
    faults: tuple[str, ...] = ()
    strikes: tuple[int, ...] = (0, 1, 3, 8, 20, 40)
    submits: tuple[int, ...] = (1, 2, 4, 8)
    cancels: tuple[int, ...] = (0, 0, 1, 4)
    latencies: tuple[float, ...] = (0.0002, 0.002, 0.05, 0.4)  # seconds between hosts
    store_latencies: tuple[float, ...] = (0.0002, 0.002, 0.05, 0.5)
    answers_lost: tuple[float, ...] = (0.0, 0.0, 0.02, 0.1)  # share of commits whose outcome stays unknown
    starts_refused: tuple[float, ...] = (0.0, 0.0, 0.1, 0.5)  # share of starts for which a worker has no means
    slow: tuple[float, ...] = (0.0, 0.0, 0.0, 0.1)  # seconds that a turn may wait for the processor
    drift: float = 0.0  # part by which a host's clock may be fast or slow


PROFILES = {
    "mixed": Profile(
        "a few kinds of trouble at a time, of those that every cluster meets",
        (*CRASHES, *BLACKOUT, *NETWORK, *STORE, *REGISTRY, *DRAIN),
    ),
    "crash": Profile(
        "daemons die at every step, restart under the same name, all masters at once",
        (*CRASHES, *BLACKOUT, *DRAIN), strikes=(3, 8, 20, 40), answers_lost=(0.0, 0.1),
    ),
    "network": Profile(
        "links break, stall one way and both, and heal; hosts are cut off",
        NETWORK, strikes=(3, 8, 20, 40),
    ),
    "store": Profile(
        "the database is down, slow, and does not say whether it has committed",
        (*STORE, "crash_mid_commit", "expire_master"), strikes=(3, 8, 20), answers_lost=(0.02, 0.1, 0.4),
    ),
    "registry": Profile(
        "sessions end, views are old or differ, the registry is away or wiped, masters do not believe it",
        (*REGISTRY, *SPLIT, "crash_master"), strikes=(3, 8, 20, 40),
    ),
    "pauses": Profile(
        "processes and machines stand still beyond their lease and go on; clocks jump and drift by two percent",
        (*PAUSES, *CLOCKS, "cut"), strikes=(1, 3, 8, 20), drift=0.02,
    ),
    "calm": Profile(
        "nothing goes wrong: everything ends, and soon",
        strikes=(0,), submits=(4, 8, 16), answers_lost=(0.0,), starts_refused=(0.0,), slow=(0.0,),
    ),
    "storm": Profile(
        "all of it at once",
        (*CRASHES, *BLACKOUT, *NETWORK, *STORE, *REGISTRY, *SPLIT, *PAUSES, *CLOCKS, *DRAIN),
        strikes=(20, 40, 80), drift=0.02,
    ),
}  # fmt: skip
DEFAULT = "mixed"
