"""People and programs: they submit workflows, cancel runs, ask for explanations, and ask again until answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsfast.engine.events import Received
from dsfast.model import Workflow, canonical
from dsfast.wire import commands as cmd
from dsfast.wire.codec import decode, encode

if TYPE_CHECKING:
    from dsfast.sim.world import World

CLIENT = "client@1"
WATCHED = 2  # of so many runs one
PATIENCE_SECONDS = 5.0  # without an answer for so long a client asks another master


class Client:
    """Sends requests to masters and takes their answers; its links never fail, its masters do."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._requests: dict[int, cmd.Command] = {}  # not answered yet
        self._count = 0
        self._next_try: dict[int, int] = {}  # request -> number of the one try that is due; a failure brings it forward

    def submit(self, workflow: Workflow, key: str | None) -> None:
        """Submit a workflow; with a key until it is accepted, and sometimes twice."""
        self._ask(cmd.Submit(canonical(workflow), b"{}", key))
        if key is not None and self._world.rng.random() < 0.1:
            self._ask(cmd.Submit(canonical(workflow), b"{}", key))

    def cancel(self, run_id: int) -> None:
        """Cancel a run at whoever owns it, until that is done or the run has ended."""
        self._world.checks.cancel_asked(run_id)
        self._ask(cmd.Cancel(run_id, "changed my mind", self._world.rng.choice((None, 0.0, 3.0))))

    def explain(self, run_id: int) -> None:
        """Ask every master why the run does not go on; one answers."""
        for master in self._world.masters():
            master.put(Received(CLIENT, 0, cmd.Explain(run_id)))

    def hear(self, peer: str, request_id: int, command: cmd.Command) -> None:
        """An answer, if it is for us."""
        if peer != CLIENT:
            return
        frame = encode(command, request_id)
        answer = decode(command.KIND, frame[20:])
        asked = self._requests.get(request_id)
        if asked is None:
            return
        if isinstance(answer, cmd.Failed):
            self._try_in(0.2, request_id)
            return
        del self._requests[request_id]
        match asked, answer:
            case cmd.Submit(), cmd.Submitted():
                self._world.checks.accepted(answer.run_id, asked.idempotency_key)
                self._watch(answer.run_id)
            case cmd.Cancel(), cmd.Done():
                assert asked.run_id == answer.run_id
            case _:
                raise AssertionError(f"{asked} was answered with {answer}")

    def _watch(self, run_id: int) -> None:
        """Wait for the end of some runs, at whoever owns them now."""
        owner = self._world.store.runs[run_id].owner
        for master in self._world.masters():
            if run_id % WATCHED == 0 and master.member.id == owner:
                master.put(Received(CLIENT, 0, cmd.Watch(run_id)))

    def _ask(self, command: cmd.Command) -> None:
        self._count += 1
        self._requests[self._count] = command
        self._try_in(0.0, self._count)

    def _try_in(self, seconds: float, request_id: int) -> None:
        number = self._next_try[request_id] = self._next_try.get(request_id, 0) + 1
        self._world.clock.after(seconds, self._again, request_id, number)

    def _again(self, request_id: int, number: int) -> None:
        asked = self._requests.get(request_id)
        if asked is None or number != self._next_try[request_id]:
            return
        if isinstance(asked, cmd.Cancel) and self._world.store.runs[asked.run_id].state.final:
            del self._requests[request_id]
            return
        masters = self._world.masters()
        if masters:
            master = self._world.rng.choice(masters)
            master.put(Received(CLIENT, request_id, asked))
        if not isinstance(asked, cmd.Submit) or asked.idempotency_key is not None:
            self._try_in(PATIENCE_SECONDS, request_id)
