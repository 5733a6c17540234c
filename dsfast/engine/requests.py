"""What clients ask of a master: submit, cancel, explain; answered once what the answer promises is durable.

And what another master asks: whether the store answers this one.
"""

from __future__ import annotations

import msgspec

from dsfast.engine.core import Core
from dsfast.engine.credible import short
from dsfast.engine.effects import MasterEffects
from dsfast.engine.events import Received
from dsfast.engine.explain import explain
from dsfast.engine.plan import Plan, digest_of
from dsfast.engine.run import Run
from dsfast.errors import UsageError
from dsfast.model import DURATION_SECONDS_MAX, NAME_LENGTH_MAX, PARAMS_BYTES_MAX, RunState
from dsfast.rows import DefinitionRow, RunRow
from dsfast.wire import commands as cmd


def on_submit(core: Core, e: Received, c: cmd.Submit, fx: MasterEffects) -> None:
    """A new run: its rows, its first tasks, and an answer that leaves once all of it is durable."""
    if not core.registered:
        sentence = f"master {core.me.name} has lost its registry session and takes no new runs until it is back"
        fx.sends.append((e.peer_id, e.request_id, cmd.Failed("unavailable", sentence)))
        return
    try:
        run = _new_run(core, c, fx)
    except UsageError as error:
        fx.sends.append((e.peer_id, e.request_id, cmd.Failed("usage", str(error))))
        return
    core.concerning = run.id
    core.submits[run.id] = e
    fx.sends.append((e.peer_id, e.request_id, cmd.Submitted(run.id)))
    core.open(run, run.begin())
    core.end_if_over(run, fx)


def _new_run(core: Core, c: cmd.Submit, fx: MasterEffects) -> Run:
    known = core.known_plan(digest_of(c.workflow))
    plan = core.compile(c.workflow) if known is None else known
    _check_params(plan, c.params)
    if c.idempotency_key is not None and not 0 < len(c.idempotency_key) <= NAME_LENGTH_MAX:
        raise UsageError(f"an idempotency key has 1 to {NAME_LENGTH_MAX} characters")
    if known is None:
        fx.batch.definitions.append(DefinitionRow(plan.digest, plan.name, c.workflow))
    row = RunRow(
        id=core.ids.next(core.wall),
        workflow=plan.name,
        digest=plan.digest,
        state=RunState.SUBMITTED,
        owner=core.me.id,
        epoch=1,
        priority=plan.priority if c.priority is None else c.priority,
        params=c.params,
        created_at=core.wall,
        idempotency_key=c.idempotency_key,
        tasks=len(plan),
    )
    run = core.runs[row.id] = Run(row, core.remember(plan))
    fx.batch.new_runs.append(row)
    fx.batch.epochs[row.id] = row.epoch
    return run


def _check_params(plan: Plan, params: bytes) -> None:
    if len(params) > PARAMS_BYTES_MAX:
        raise UsageError(
            f"the parameters take {len(params):,} bytes; the most is {PARAMS_BYTES_MAX:,}: pass large data as a file"
        )
    try:
        given = msgspec.json.decode(params, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"the parameters are not a JSON object: {error}") from None
    plan.merged_params(given)


def on_cancel(core: Core, e: Received, c: cmd.Cancel, fx: MasterEffects) -> None:
    """Stop a run. Cancelling again insists: what still runs is killed with the grace given now."""
    run = core.runs.get(c.run_id)
    if run is None:
        fx.sends.append((e.peer_id, e.request_id, _not_owner(core)))
        return
    fx.sends.append((e.peer_id, e.request_id, cmd.Done(run.id)))
    grace = c.grace if c.grace is not None and 0 <= c.grace <= DURATION_SECONDS_MAX else None
    core.cancel(run, short(c.reason), grace, fx)


def on_explain(core: Core, e: Received, c: cmd.Explain, fx: MasterEffects) -> None:
    """Say why the unfinished tasks of a run do not run."""
    run = core.runs.get(c.run_id)
    answer = _not_owner(core) if run is None else explain(run, core.dispatcher, core.deadlines, core.now, c.limit)
    fx.sends.append((e.peer_id, e.request_id, answer))


def on_probe(core: Core, e: Received, c: cmd.Probe, fx: MasterEffects) -> None:
    """A master that the store does not answer wants to know whether it answers us: only asking it can tell."""
    fx.probes.append((e.peer_id, e.request_id))


def _not_owner(core: Core) -> cmd.Failed:
    return cmd.Failed("not_owner", f"master {core.me.name} does not own this run")
