"""What a commit has to say about the turn it belongs to, before anything of the turn leaves.

Both are rare. A run that another master owns by now: nothing was written for it, so nothing may be said of it.
A submit whose idempotency key is known: the run that was made for it does not exist, the answer names the other.

A confirmation that took DOUBT_SECONDS to reach us (we stood still, or the network did) may be out of date: another
master may own the runs by now, and a worker that has not heard of it would believe us. Then the batch is committed once
more, which changes nothing if it still holds.
"""

from __future__ import annotations

from dsfast.engine.effects import MasterEffects, Send
from dsfast.rows import Committed
from dsfast.wire import commands as cmd

DOUBT_SECONDS = 2.0  # from the decision to its confirmation; less than a lease, so nobody has taken over sooner


def amend(fx: MasterEffects, committed: Committed) -> dict[int, int]:
    """Take out of the turn what was not written; the runs that the engine must forget, with the epochs of the turn."""
    if not committed.lost and not committed.duplicates:
        return {}
    gone = committed.lost | committed.duplicates.keys()
    fx.sends = [kept for send in fx.sends if (kept := _kept(send, committed, gone)) is not None]
    fx.ended = [run_id for run_id in fx.ended if run_id not in gone]
    return {run_id: fx.batch.epochs[run_id] for run_id in sorted(gone)}


def _kept(send: Send, committed: Committed, gone: frozenset[int]) -> Send | None:
    peer, request_id, command = send
    if isinstance(command, cmd.SubmittedBatch):
        verdicts = (_amended(each, committed) if each.run_id in gone else each for each in command.verdicts)
        return peer, request_id, cmd.SubmittedBatch(tuple(verdicts))
    run_id = getattr(command, "run_id", None)
    if run_id not in gone:
        return send
    if isinstance(command, cmd.Submitted):
        return peer, request_id, cmd.Submitted(committed.duplicates.get(run_id, run_id), repeated=True)
    if request_id:
        return peer, request_id, cmd.Failed("not_owner", "another master owns this run by now")
    return None


def _amended(verdict: cmd.Verdict, committed: Committed) -> cmd.Verdict:
    return cmd.Verdict(committed.duplicates.get(verdict.run_id, verdict.run_id), repeated=True)
