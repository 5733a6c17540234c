"""What each kind of fault does to the stage, and how it is healed.

`begin` returns what heals it. A fault whose target is not there at that moment (it has ended by itself and is being
started again) does nothing.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence

from dsfast.chaos.plan import KINDS, Fault
from dsfast.chaos.stage import Stage
from dsfast.errors import Unavailable

Heal = Callable[[], None]
KILL, STOP, CONT = signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT


def possible(stage: Stage) -> list[str]:
    """The kinds of faults that this stage allows."""
    found = [kind for kind in KINDS if kind.startswith(("worker-", "guardian-", "master", "api-"))]
    found += ["store-restart"] if stage.store is not None else []
    found += ["store-connections"]
    found += [kind for kind in KINDS if kind.startswith("registry-")] if stage.registry is not None else []
    if stage.network.can_cut:
        found += [kind for kind in KINDS if kind.startswith("cut-") and _ends_known(kind, stage)]
    return [kind for kind in KINDS if kind in found]


def _ends_known(kind: str, stage: Stage) -> bool:
    """Whether both ends of a cut have an address of their own."""
    return not (kind.endswith("-store") and stage.store is None) and not (
        kind.endswith("-registry") and stage.registry is None
    )


def begin(fault: Fault, stage: Stage) -> Heal:
    """Let it happen. Raises Unavailable if what is needed for it is out of reach itself."""
    return _BEGIN[fault.kind](fault, stage)


# -- daemons ---------------------------------------------------------------------------------------------------


def _kill(stage: Stage, name: str, pids: Sequence[int]) -> Heal:
    stage.down.add(name)
    stage.strike(list(pids), KILL)
    return lambda: stage.down.discard(name)


def _kill_daemon(fault: Fault, stage: Stage) -> Heal:
    name = fault.targets[0]
    return _kill(stage, name, stage.cluster.pids(name)[-1:])


def _kill_guardian(fault: Fault, stage: Stage) -> Heal:
    """One of them, if there are several."""
    name = fault.targets[0]
    guardians = stage.cluster.pids(name)[:-1]
    return _kill(stage, name, [guardians[int(fault.roll * len(guardians))]] if guardians else [])


def _kill_both(fault: Fault, stage: Stage) -> Heal:
    name = fault.targets[0]
    return _kill(stage, name, stage.cluster.pids(name)[-2:])


def _pause(fault: Fault, stage: Stage) -> Heal:
    pids = stage.cluster.pids(fault.targets[0])[-1:]
    stage.strike(pids, STOP)
    return lambda: stage.strike(pids, CONT)


def _kill_masters(fault: Fault, stage: Stage) -> Heal:
    heals = [_kill(stage, name, stage.cluster.pids(name)) for name in stage.cast.masters]
    return _all(heals)


# -- servers ---------------------------------------------------------------------------------------------------


def _restart_store(fault: Fault, stage: Stage) -> Heal:
    assert stage.store is not None
    stage.store.stop(immediate=True)
    return stage.store.start


def _cut_off(fault: Fault, stage: Stage) -> Heal:
    stage.journal.cut_off()
    return _nothing


def _kill_servers(count: int) -> Callable[[Fault, Stage], Heal]:
    def begin(fault: Fault, stage: Stage) -> Heal:
        assert stage.registry is not None
        servers = stage.registry.servers
        first = int(fault.roll * len(servers))
        struck = [servers[(first + at) % len(servers)] for at in range(count)]
        for server in struck:
            server.stop()
        return _all([server.launch for server in struck])

    return begin


def _end_session(fault: Fault, stage: Stage) -> Heal:
    assert stage.registry is not None
    if not stage.registry.expire(f"/{fault.targets[0]}@"):
        raise Unavailable(f"{fault.targets[0]} has no session")
    return _nothing


# -- the network -----------------------------------------------------------------------------------------------


def _cut(stage: Stage, fault: Fault, ones: Sequence[str], others: Sequence[str]) -> Heal:
    """Both ways in half of the cases, else one of them."""
    ways = [(one, other) for one in ones for other in others if fault.roll < 0.75]
    ways += [(other, one) for one in ones for other in others if fault.roll < 0.5 or fault.roll >= 0.75]
    for source, target in ways:
        stage.network.cut(source, target)
    return _all([_mending(stage, source, target) for source, target in ways])


def _mending(stage: Stage, source: str, target: str) -> Heal:
    return lambda: stage.network.mend(source, target)


def _cut_pair(fault: Fault, stage: Stage) -> Heal:
    return _cut(stage, fault, fault.targets[:1], fault.targets[1:])


def _cut_from(*roles: str) -> Callable[[Fault, Stage], Heal]:
    def begin(fault: Fault, stage: Stage) -> Heal:
        others = [name for role in roles for name in _addresses(stage, role) if name not in fault.targets]
        return _cut(stage, fault, fault.targets, others)

    return begin


def _addresses(stage: Stage, role: str) -> Sequence[str]:
    if role == "registry":
        return [f"zk{number}" for number, _ in enumerate(stage.registry.servers, 1)] if stage.registry else []
    if role == "store":
        return ["store"] if stage.store is not None else []
    return stage.cast.of(role)


def _all(heals: Sequence[Heal]) -> Heal:
    def heal() -> None:
        for each in heals:
            each()

    return heal


def _nothing() -> None:
    """It is over as soon as it has happened."""


_BEGIN: dict[str, Callable[[Fault, Stage], Heal]] = {
    "worker-kill": _kill_daemon,
    "worker-restart": _kill_daemon,
    "guardian-kill": _kill_guardian,
    "worker-both": _kill_both,
    "worker-pause": _pause,
    "master-kill": _kill_daemon,
    "master-restart": _kill_daemon,
    "master-pause": _pause,
    "masters-out": _kill_masters,
    "api-kill": _kill_daemon,
    "store-restart": _restart_store,
    "store-connections": _cut_off,
    "registry-server": _kill_servers(1),
    "registry-out": _kill_servers(2),
    "registry-session": _end_session,
    "cut-master-worker": _cut_pair,
    "cut-worker": _cut_from("member", "registry", "store", "api"),
    "cut-master-store": _cut_from("store"),
    "cut-master-registry": _cut_from("registry"),
    "cut-worker-registry": _cut_from("registry"),
}
