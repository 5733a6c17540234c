"""What clients ask of a master: submit, cancel, explain; answered once what the answer promises is durable.

And what another master asks: whether the store answers this one.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from dsfast.engine.core import Core
from dsfast.engine.credible import short
from dsfast.engine.effects import MasterEffects
from dsfast.engine.events import Received
from dsfast.engine.explain import explain
from dsfast.engine.plan import Plan, digest_of
from dsfast.engine.run import Run
from dsfast.errors import UsageError
from dsfast.model import BATCH_RUNS_MAX, DURATION_SECONDS_MAX, NAME_LENGTH_MAX, PARAMS_BYTES_MAX, RunState
from dsfast.rows import DefinitionRow, RunRow
from dsfast.wire import commands as cmd


def on_submit(core: Core, e: Received, c: cmd.Submit, fx: MasterEffects) -> None:
    """A new run: its rows, its first tasks, and an answer that leaves once all of it is durable."""
    if not core.registered:
        fx.sends.append((e.peer_id, e.request_id, _not_registered(core)))
        return
    order = cmd.Order(0, c.params, c.idempotency_key, c.priority)
    try:
        run = _new_run(core, e, _plan_of(core, c.workflow), c.workflow, order, fx)
    except UsageError as error:
        fx.sends.append((e.peer_id, e.request_id, cmd.Failed("usage", str(error))))
        return
    fx.sends.append((e.peer_id, e.request_id, cmd.Submitted(run.id, created_at=core.wall)))
    core.open(run, run.begin())
    core.end_if_over(run, fx)


def on_submit_batch(core: Core, e: Received, c: cmd.SubmitBatch, fx: MasterEffects) -> None:
    """Many new runs, each taken or refused by itself, and one answer once all that were taken are durable."""
    if not core.registered:
        fx.sends.append((e.peer_id, e.request_id, _not_registered(core)))
        return
    if len(c.runs) > BATCH_RUNS_MAX:
        sentence = f"a batch of {len(c.runs):,} runs; the most is {BATCH_RUNS_MAX:,}"
        fx.sends.append((e.peer_id, e.request_id, cmd.Failed("usage", sentence)))
        return
    plans = [_plan_or_error(core, body) for body in c.workflows]
    verdicts = tuple(_verdict(core, e, c, plans, order, fx) for order in c.runs)
    fx.sends.append((e.peer_id, e.request_id, cmd.SubmittedBatch(verdicts)))


def _verdict(
    core: Core,
    e: Received,
    c: cmd.SubmitBatch,
    plans: Sequence[Plan | UsageError],
    order: cmd.Order,
    fx: MasterEffects,
) -> cmd.Verdict:
    if not 0 <= order.workflow < len(plans):
        return cmd.Verdict(refused=f"the batch has no workflow {order.workflow}")
    plan = plans[order.workflow]
    if isinstance(plan, UsageError):
        return cmd.Verdict(refused=str(plan))
    try:
        run = _new_run(core, e, plan, c.workflows[order.workflow], order, fx)
    except UsageError as error:
        return cmd.Verdict(refused=str(error))
    core.open(run, run.begin())
    core.end_if_over(run, fx)
    return cmd.Verdict(run.id)


def _plan_of(core: Core, body: bytes) -> Plan:
    known = core.known_plan(digest_of(body))
    return core.compile(body) if known is None else known


def _plan_or_error(core: Core, body: bytes) -> Plan | UsageError:
    """What is wrong with a workflow that many runs share is found once."""
    try:
        return _plan_of(core, body)
    except UsageError as error:
        return error


def _new_run(core: Core, e: Received, plan: Plan, body: bytes, order: cmd.Order, fx: MasterEffects) -> Run:
    _check_params(plan, order.params)
    if order.idempotency_key is not None and not 0 < len(order.idempotency_key) <= NAME_LENGTH_MAX:
        raise UsageError(f"an idempotency key has 1 to {NAME_LENGTH_MAX} characters")
    if core.known_plan(plan.digest) is None:
        fx.batch.definitions.append(DefinitionRow(plan.digest, plan.name, body))
    row = RunRow(
        id=core.ids.next(core.wall),
        workflow=plan.name,
        digest=plan.digest,
        state=RunState.SUBMITTED,
        owner=core.me.id,
        epoch=1,
        priority=plan.priority if order.priority is None else order.priority,
        params=order.params,
        created_at=core.wall,
        idempotency_key=order.idempotency_key,
        tasks=len(plan),
    )
    run = core.runs[row.id] = Run(row, core.remember(plan))
    core.concerning = run.id
    core.submits[run.id] = e
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
        fx.sends.append((e.peer_id, e.request_id, not_owner(core)))
        return
    fx.sends.append((e.peer_id, e.request_id, cmd.Done(run.id)))
    grace = c.grace if c.grace is not None and 0 <= c.grace <= DURATION_SECONDS_MAX else None
    core.cancel(run, short(c.reason), grace, fx)


def on_explain(core: Core, e: Received, c: cmd.Explain, fx: MasterEffects) -> None:
    """Say why the unfinished tasks of a run do not run."""
    run = core.runs.get(c.run_id)
    answer = not_owner(core) if run is None else explain(run, core.dispatcher, core.deadlines, core.now, c.limit)
    fx.sends.append((e.peer_id, e.request_id, answer))


def on_watch(core: Core, e: Received, c: cmd.Watch, fx: MasterEffects) -> None:
    """Answer when the run has ended, or is ours no longer: whoever waits for it looks where it is then."""
    if c.run_id in core.runs:
        core.watchers.setdefault(c.run_id, []).append((e.peer_id, e.request_id))
    else:
        fx.sends.append((e.peer_id, e.request_id, not_owner(core)))


def on_probe(core: Core, e: Received, c: cmd.Probe, fx: MasterEffects) -> None:
    """A master that the store does not answer wants to know whether it answers us: only asking it can tell."""
    fx.probes.append((e.peer_id, e.request_id))


def _not_registered(core: Core) -> cmd.Failed:
    sentence = f"master {core.me.name} has lost its registry session and takes no new runs until it is back"
    return cmd.Failed("unavailable", sentence)


def not_owner(core: Core) -> cmd.Failed:
    """The answer about a run that is not ours."""
    return cmd.Failed("not_owner", f"master {core.me.name} does not own this run")
