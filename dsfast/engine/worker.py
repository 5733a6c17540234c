"""The worker: accept, start, report until acknowledged, kill, drain. One handler for everything that can happen.

Theory of operation. Whatever a master sent is held until that master (or the one that took its run over) has
acknowledged the result: queued, running, killing or ended. A run is bound to the master that last proved the
highest epoch for it, by dispatching or by Adopt; everything about the run is reported on that master's link, and a
command under a lower epoch is refused: a deposed master can start and kill nothing here, and is told so. Nothing is
reported twice on one link; when a link comes up the master says Adopt, and then everything it does not know yet is
said again, ended attempts first, and after them what is held. An attempt is answered for as long as it is held, so
a repeated Execute starts nothing twice.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable

import msgspec

from dsfast.engine import events as ev
from dsfast.engine import fence
from dsfast.engine.credit import Pace, Share, limits, worth_telling
from dsfast.engine.deadlines import Deadlines
from dsfast.engine.effects import Kept, KillOrder, WorkerEffects
from dsfast.engine.held import Binding, Held, Phase
from dsfast.model import AttemptState, Member, Outcome
from dsfast.wire import commands as cmd

EPOCHS_MAX = 100_000  # runs whose highest epoch is remembered after the last attempt of them is gone
TIMEOUT_GRACE_SECONDS = 5.0  # a task that has used up its time gets this long to tidy up
STOPPING = "its worker is stopping"


class WorkerEngine:
    """Decides for all attempts that masters have sent here."""

    def __init__(self, me: Member) -> None:
        self.me = me
        self._id = me.id
        self.held: dict[cmd.Attempt, Held] = {}
        self.bindings: dict[int, Binding] = {}
        self.masters: dict[str, Share] = {}  # linked ones
        self.known: frozenset[str] = frozenset()  # masters that the registry showed last
        self.queue: deque[cmd.Attempt] = deque()
        self.deadlines = Deadlines()
        self.busy = 0  # slots taken
        self.listed = True  # the registry shows us, or may do so again before it has told others otherwise
        self.draining = False
        self.stopping = False
        self.refused_commands = 0  # under an outdated epoch
        self._pace = Pace()
        self._shared = -1  # the capacity that masters were last told their limits of; -1: they may differ by now
        self._epochs: OrderedDict[int, int] = OrderedDict()
        self._news: list[Held] = []  # started in this turn
        self.now = 0.0

    def step(self, events: Iterable[ev.Event], now: float) -> WorkerEffects:
        """Take in what happened; say what must be done about it. `now` is monotonic."""
        self.now = now
        fx = WorkerEffects()
        for event in events:
            EVENTS[type(event)](self, event, fx)
        for key in self.deadlines.due(now):
            self._on_due(key, fx)
        self._start(fx)
        self._tell_started(fx)
        self._tell_credit(fx)
        fx.wake_at = self.deadlines.earliest()
        fx.idle = self.draining and not self.held
        return fx

    def recall(self, kept: Iterable[Kept]) -> None:
        """Take on the results that former lives have left; masters ask for them by Adopt."""
        for epoch, c in kept:
            key = (c.run_id, c.task, c.attempt)
            held = Held(key, cmd.Execute(*key, epoch, "", b""), Phase.ENDED)
            held.outcome, held.life = c.outcome, c.life
            self.held[held.key] = held
            binding = self.bindings.setdefault(c.run_id, Binding("", epoch))
            binding.epoch = max(binding.epoch, epoch)
            binding.held += 1

    def patience(self) -> float:
        """For how many seconds everything that runs may run on without lease and link; inf when nothing does."""
        running = (held for held in self.held.values() if held.phase in (Phase.RUNNING, Phase.KILLING))
        return min(map(self._patience_of, running), default=math.inf)

    def _patience_of(self, held: Held) -> float:
        parting = self.deadlines.at(held.parting)
        if parting is not None:  # some of it is used up
            return max(parting - self.now, 0.0)
        return math.inf if held.runs_on is None else held.runs_on

    # -- what masters say -------------------------------------------------------------------------------

    def _on_received(self, e: ev.Received, fx: WorkerEffects) -> None:
        handler = COMMANDS.get(type(e.command))
        if handler is not None:
            handler(self, e.peer_id, e.command, fx)
        elif isinstance(e.command, cmd.LogRead):
            fx.log_reads.append((e.peer_id, e.request_id, e.command))

    def _on_execute(self, peer: str, c: cmd.Execute, fx: WorkerEffects) -> None:
        key = (c.run_id, c.task, c.attempt)
        if not self._admit(peer, c.run_id, c.epoch, fx):
            return
        held = self.held.get(key)
        if held is not None:
            self._report(held, fx)
        elif self.draining:
            fx.sends.append((peer, 0, cmd.Refused(*key, "the worker is draining")))
        else:
            self.held[key] = Held(key, c)
            self.bindings.setdefault(c.run_id, Binding(peer, c.epoch, sure_at=self.now)).held += 1
            self.queue.append(key)

    def _admit(self, peer: str, run_id: int, epoch: int, fx: WorkerEffects) -> bool:
        """Whether this epoch is the highest seen for the run; remembers it, and tells the master that it outbids."""
        binding = self.bindings.get(run_id)
        known = binding.epoch if binding is not None else self._epochs.get(run_id, 0)
        if epoch < known:
            self.refused_commands += 1
            fx.sends.append((peer, 0, cmd.Deposed(run_id, known)))
            return False
        if binding is None:
            self._remember(run_id, epoch)
        else:
            if binding.master != peer and binding.master in self.masters:
                fx.sends.append((binding.master, 0, cmd.Deposed(run_id, epoch)))
            binding.master, binding.epoch, binding.disowned = peer, epoch, False
        return True

    def _remember(self, run_id: int, epoch: int) -> None:
        self._epochs[run_id] = epoch
        self._epochs.move_to_end(run_id)
        if len(self._epochs) > EPOCHS_MAX:
            self._epochs.popitem(last=False)

    def _on_kill(self, peer: str, c: cmd.Kill, fx: WorkerEffects) -> None:
        key = (c.run_id, c.task, c.attempt)
        if not self._admit(peer, c.run_id, c.epoch, fx):
            return
        held = self.held.get(key)
        fx.sends.append((peer, 0, cmd.KillAnswer(*key, held is not None)))
        if held is not None and held.phase is Phase.ENDED:
            self._report(held, fx)
        elif held is not None:
            self.kill(held, c.grace, AttemptState.KILLED, c.reason, fx)

    def kill(self, held: Held, grace: float, end_as: AttemptState, reason: str, fx: WorkerEffects) -> None:
        """End an attempt; the first reason given is the one reported."""
        if held.phase is Phase.QUEUED:
            self.queue.remove(held.key)
            self._end(held, Outcome(end_as, reason=reason), fx)
            return
        if held.phase is Phase.RUNNING:
            held.phase, held.end_as, held.reason = Phase.KILLING, end_as, reason
        fx.kills.append(KillOrder(held.key, grace, held.reason))

    def _on_adopt(self, peer: str, c: cmd.Adopt, fx: WorkerEffects) -> None:
        """Report on these runs, and show what nobody else may be waiting for: perhaps its run has ended.

        A result that its master does not acknowledge is such a thing, too: the master may have lost the run to one
        that had no link to us, and that has ended it since.
        """
        admitted = {run_id for run_id, epoch in c.runs if self._admit(peer, run_id, epoch, fx)}
        mine, strays = [], []
        for held in self.held.values():
            binding = self.bindings[held.execute.run_id]
            if held.execute.run_id in admitted:
                held.told = False
                mine.append(held)
            elif binding.master == peer or binding.master not in self.masters or held.phase is Phase.ENDED:
                strays.append(held)
        fence.check(self, fx)
        for held in mine:
            self._report(held, fx)
        fx.sends.append((peer, 0, cmd.Holding(tuple(admitted), tuple(held.key for held in mine), c.serial)))
        if strays:
            fx.sends.append((peer, 0, cmd.Holding((), tuple(held.key for held in strays))))

    def _on_started_ack(self, peer: str, c: cmd.StartedAck, fx: WorkerEffects) -> None:
        """Nothing hangs on it: a start is repeated only on a new link, and overtaken by the result."""

    def _on_result_ack(self, peer: str, c: cmd.ResultAck, fx: WorkerEffects) -> None:
        key = (c.run_id, c.task, c.attempt)
        held = self.held.get(key)
        if held is not None and held.phase is Phase.ENDED:
            if not held.life:
                self._pace.add_answer(self.now - held.ended)
            fx.forgotten.append(key)
            self._forget(held)

    def _forget(self, held: Held) -> None:
        del self.held[held.key]
        binding = self.bindings[held.execute.run_id]
        binding.held -= 1
        if binding.held == 0:
            del self.bindings[held.execute.run_id]
            self._remember(held.execute.run_id, binding.epoch)

    def _on_demand(self, peer: str, c: cmd.Demand, fx: WorkerEffects) -> None:
        if peer in self.masters:
            self.masters[peer].hungry = c.hungry
            self._shared = -1

    # -- what links and task types say ---------------------------------------------------------------------

    def _on_link_up(self, e: ev.LinkUp, fx: WorkerEffects) -> None:
        if e.peer.role != "master":
            return
        self.masters[e.peer.id] = Share()
        self._shared = -1
        if self.draining:
            fx.sends.append((e.peer.id, 0, cmd.Draining()))

    def _on_link_down(self, e: ev.LinkDown, fx: WorkerEffects) -> None:
        self.masters.pop(e.peer_id, None)
        self._shared = -1
        fence.check(self, fx)

    def _on_attempt_started(self, e: ev.AttemptStarted, fx: WorkerEffects) -> None:
        held = self.held.get(e.key)
        if held is not None and held.phase is not Phase.ENDED:
            held.started_at = e.wall
            self._news.append(held)
            held.timeout, held.runs_on = e.timeout, e.runs_on
            fx.patient = fx.patient or e.runs_on != 0
            if e.timeout is not None:
                self.deadlines.set(held.key, self.now + e.timeout)

    def _tell_started(self, fx: WorkerEffects) -> None:
        """Say what started in this turn, unless it has ended in it too."""
        for held in self._news:
            if held.phase is not Phase.ENDED and not held.told:
                self._report(held, fx)
        self._news.clear()

    def _on_attempt_ended(self, e: ev.AttemptEnded, fx: WorkerEffects) -> None:
        held = self.held.get(e.key)
        if held is None or held.phase not in (Phase.RUNNING, Phase.KILLING):
            return
        self.busy -= 1
        self._pace.add(self.now - held.began)
        outcome = e.outcome
        if held.phase is Phase.KILLING and outcome.state is AttemptState.KILLED:
            outcome = msgspec.structs.replace(outcome, state=held.end_as, reason=held.reason)
        self._end(held, outcome, fx)

    def _end(self, held: Held, outcome: Outcome, fx: WorkerEffects) -> None:
        held.phase, held.outcome, held.ended = Phase.ENDED, outcome, self.now
        if held.timeout is not None:
            self.deadlines.cancel(held.key)
        if not self.listed:
            self.deadlines.cancel(held.parting)
        fx.kept.append((self.bindings[held.execute.run_id].epoch, cmd.Result(*held.key, outcome, self._id)))
        self._report(held, fx)

    def _on_attempt_refused(self, e: ev.AttemptRefused, fx: WorkerEffects) -> None:
        held = self.held.get(e.key)
        if held is None or held.phase not in (Phase.RUNNING, Phase.KILLING):
            return
        self.busy -= 1
        if held.phase is Phase.KILLING:
            self._end(held, Outcome(held.end_as, reason=held.reason), fx)
            return
        self._send(held, cmd.Refused(*held.key, e.reason, retry_here=True), fx)
        self._forget(held)

    # -- drain and stop ---------------------------------------------------------------------------------------

    def _on_drain(self, e: ev.Drain, fx: WorkerEffects) -> None:
        if self.draining:
            return
        self.draining = True
        for peer in self.masters:
            fx.sends.append((peer, 0, cmd.Draining()))
        while self.queue:
            held = self.held[self.queue.popleft()]
            self._send(held, cmd.Refused(*held.key, "the worker is draining"), fx)
            self._forget(held)

    def _on_stop(self, e: ev.Stop, fx: WorkerEffects) -> None:
        """What runs here is lost with this worker, and uses up no retry."""
        self._on_drain(ev.Drain(), fx)
        self.stopping = True
        for held in list(self.held.values()):
            if held.phase in (Phase.RUNNING, Phase.KILLING):
                self.kill(held, e.grace, AttemptState.FAILOVER, STOPPING, fx)

    # -- decisions ----------------------------------------------------------------------------------------------

    def _start(self, fx: WorkerEffects) -> None:
        while self.queue and self.busy < self.me.slots:
            held = self.held[self.queue.popleft()]
            held.phase, held.began = Phase.RUNNING, self.now
            self.busy += 1
            fx.starts.append(held.execute)

    def _on_due(self, key: Hashable, fx: WorkerEffects) -> None:
        if key == fence.FENCE:
            fence.check(self, fx)
            return
        if isinstance(key, tuple) and key[0] == "parting":
            fence.on_due(self, key[1], fx)
            return
        held = self.held.get(key)  # type: ignore[call-overload]
        if held is not None and held.phase is Phase.RUNNING:
            self.kill(held, TIMEOUT_GRACE_SECONDS, AttemptState.FAILED, f"timed out after {held.timeout:g} s", fx)

    def _report(self, held: Held, fx: WorkerEffects) -> None:
        """Say what the owner of the run must know of this attempt, if there is a link to it."""
        if held.outcome is not None:
            self._send(held, cmd.Result(*held.key, held.outcome, held.life), fx)
        elif held.started_at:
            held.told = self._send(held, cmd.Started(*held.key, held.started_at), fx)

    def _send(self, held: Held, command: cmd.Command, fx: WorkerEffects) -> bool:
        master = self.bindings[held.execute.run_id].master
        if master in self.masters:
            fx.sends.append((master, 0, command))
            return True
        return False

    def _tell_credit(self, fx: WorkerEffects) -> None:
        """Share the capacity out among masters; what each has here matters only while some have tasks waiting."""
        capacity = self.me.slots + self._pace.prefetch(self.me.slots)
        if not self.masters or not worth_telling(self._shared, capacity):
            return
        if len(self.masters) > 1:
            self._count_held()
        for peer, limit in limits(capacity, self.masters).items():
            share = self.masters[peer]
            if worth_telling(share.limit, limit):
                share.limit = limit
                fx.sends.append((peer, 0, cmd.Credit(limit)))
        if len(self.masters) == 1 or not any(share.hungry for share in self.masters.values()):
            self._shared = capacity

    def _count_held(self) -> None:
        for share in self.masters.values():
            share.held = 0
        for binding in self.bindings.values():
            if binding.master in self.masters:
                self.masters[binding.master].held += binding.held

    def sanity_check(self) -> None:
        """Raise AssertionError if what this worker believes contradicts itself."""
        running = sum(held.phase in (Phase.RUNNING, Phase.KILLING) for held in self.held.values())
        assert running == self.busy <= self.me.slots, f"{running} running, {self.busy} slots taken of {self.me.slots}"
        queued = [held.key for held in self.held.values() if held.phase is Phase.QUEUED]
        assert sorted(queued) == sorted(self.queue), "the queue and the queued attempts differ"
        counts: dict[int, int] = {}
        for held in self.held.values():
            counts[held.execute.run_id] = counts.get(held.execute.run_id, 0) + 1
        assert counts == {run: binding.held for run, binding in self.bindings.items()}, "bindings miscount"


EVENTS: dict[type, Callable[..., None]] = {
    ev.Received: WorkerEngine._on_received,
    ev.LinkUp: WorkerEngine._on_link_up,
    ev.LinkDown: WorkerEngine._on_link_down,
    ev.SessionChanged: fence.on_session,
    ev.Members: fence.on_members,
    ev.AttemptStarted: WorkerEngine._on_attempt_started,
    ev.AttemptEnded: WorkerEngine._on_attempt_ended,
    ev.AttemptRefused: WorkerEngine._on_attempt_refused,
    ev.Drain: WorkerEngine._on_drain,
    ev.Stop: WorkerEngine._on_stop,
    ev.Tick: lambda engine, e, fx: None,
}

COMMANDS: dict[type, Callable[..., None]] = {
    cmd.Execute: WorkerEngine._on_execute,
    cmd.ResultAck: WorkerEngine._on_result_ack,
    cmd.StartedAck: WorkerEngine._on_started_ack,
    cmd.Kill: WorkerEngine._on_kill,
    cmd.Adopt: WorkerEngine._on_adopt,
    cmd.Demand: WorkerEngine._on_demand,
    cmd.Disown: fence.on_disown,
    cmd.Owned: fence.on_owned,
}
