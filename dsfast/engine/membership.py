"""What links and the registry say: workers and masters come, go and die.

Theory of operation. A link to a worker that comes up is answered with Adopt: all our runs, because the worker may
hold, for a former owner, a result that no row shows any more. The worker repeats what was not acknowledged, then says
what it holds (reports.on_holding). The same exchange serves a link that was cut, a master that was restarted and runs
taken over from a dead one (takeover.py), of which all workers are told. What follows when a worker goes is decided in
absence.py.
"""

from __future__ import annotations

from collections.abc import Iterable

from dsfast.engine import absence, takeover
from dsfast.engine import events as ev
from dsfast.engine.core import Core
from dsfast.engine.effects import MasterEffects
from dsfast.engine.workers import Worker
from dsfast.wire import commands as cmd


def on_link_up(core: Core, e: ev.LinkUp, fx: MasterEffects) -> None:
    if e.peer.role == "master":
        core.linked_masters.add(e.peer.id)
    if e.peer.role != "worker":
        return
    worker = core.dispatcher.add_worker(e.peer)
    worker.linked = True
    worker.limit, worker.hungry, worker.draining = 0, False, False
    absence.look_out_for(core, worker)
    absence.look_at_former_lives(core, worker)
    _adopt(core, worker, core.runs.keys(), fx)


def _adopt(core: Core, worker: Worker, run_ids: Iterable[int], fx: MasterEffects) -> None:
    """Tell a worker that we own these runs, and ask what it holds of them.

    Questions are numbered: one that was computed under a former link may leave on the present one, and its answer
    says nothing of what was sent after it.
    """
    core.adopts += 1
    run_ids = sorted(run_ids)
    mine = set(run_ids)
    worker.adopting.update((key, core.adopts) for key in worker.live if key[0] in mine)
    worker.asked = core.adopts
    runs = tuple((run_id, core.runs[run_id].row.epoch) for run_id in run_ids)
    fx.sends.append((worker.id, 0, cmd.Adopt(runs, core.adopts)))


def on_link_down(core: Core, e: ev.LinkDown, fx: MasterEffects) -> None:
    if e.peer_id in core.linked_masters:
        core.linked_masters.discard(e.peer_id)
        takeover.claim_share(core, fx)
    _forget_watcher(core, e.peer_id)
    worker = core.dispatcher.workers.get(e.peer_id)
    if worker is None:
        return
    worker.linked = False
    worker.limit = 0
    worker.adopting.clear()
    absence.look_out_for(core, worker)


def _forget_watcher(core: Core, peer_id: str) -> None:
    """Its requests have failed with the link; should it be back, it asks again."""
    for run_id, askers in list(core.watchers.items()):
        core.watchers[run_id] = [asker for asker in askers if asker[0] != peer_id]
        if not core.watchers[run_id]:
            del core.watchers[run_id]


def on_peer_dead(core: Core, e: ev.PeerDead, fx: MasterEffects) -> None:
    core.dead.add(e.peer_id)
    worker = core.dispatcher.workers.get(e.peer_id)
    if worker is not None:
        absence.mourn(core, worker, fx)
    elif core.masters and e.peer_id in core.masters:
        takeover.claim_share(core, fx)


def on_members(core: Core, e: ev.Members, fx: MasterEffects) -> None:
    core.members = {member.id: member for member in e.members}
    core.dead &= core.members.keys()
    for worker in list(core.dispatcher.workers.values()):
        absence.look_out_for(core, worker)
    takeover.claim_share(core, fx)


def on_session(core: Core, e: ev.SessionChanged, fx: MasterEffects) -> None:
    """A lost session pauses new runs; it kills nothing. Out of contact we do not know who is listed."""
    core.registered = e.state != "lost"
    core.in_contact = e.state == "connected"
    for worker in core.dispatcher.workers.values():
        absence.look_out_for(core, worker)


def on_claimed(core: Core, e: ev.Claimed, fx: MasterEffects) -> None:
    """Runs are ours from now on: ask all workers what they hold of them, and give up what is bound to dead ones."""
    for owned in e.runs:
        takeover.take(core, owned, e.quarantined.get(owned.run.id), fx)
    claimed = {owned.run.id for owned in e.runs}
    for worker in list(core.dispatcher.workers.values()):
        if worker.linked:
            _adopt(core, worker, claimed & core.runs.keys(), fx)
    for worker in list(core.dispatcher.workers.values()):
        if worker.id in core.dead and not worker.linked:
            absence.mourn(core, worker, fx)
