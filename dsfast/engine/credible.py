"""What workers say of an attempt is looked at before it is believed: a broken one may harm its own tasks only.

Whatever is believed here is stored, handed to tasks on other workers and computed with after a failover. What cannot
be true is the attempt's failure, with a sentence that says so.
"""

from __future__ import annotations

import msgspec

from dsfast.engine.states import OUTCOME_STEPS
from dsfast.model import OUTPUTS_BYTES_MAX, AttemptState, Outcome

SECONDS_MAX = 1e11  # since 1970: three thousand years; keeps nan, inf and milliseconds of strange clocks out
EXIT_CODE_MAX = 1 << 32  # what any system's exit codes and signals fit into
REASON_LENGTH_MAX = 2000  # characters: a sentence or two; logs are elsewhere

_is_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def believed(said: Outcome) -> Outcome:
    """The outcome as it is recorded."""
    problem = _problem(said)
    if problem is not None:
        return Outcome(AttemptState.FAILED, None, f"its worker reported {problem}")
    return said if len(said.reason) <= REASON_LENGTH_MAX else msgspec.structs.replace(said, reason=short(said.reason))


def ran_under(peer_id: str, said: str) -> str:
    """The life of a worker whose attempt this is: its own, or a former one under the same name, never another's."""
    return said if said and said.rpartition("@")[0] == peer_id.rpartition("@")[0] else peer_id


def moment(said: float, wall: float) -> float:
    """A time that a worker gives, if it can be one; else now."""
    return said if 0 < said < SECONDS_MAX else wall


def short(reason: str) -> str:
    """A reason that fits."""
    return reason if len(reason) <= REASON_LENGTH_MAX else reason[:REASON_LENGTH_MAX] + "…"


def _problem(said: Outcome) -> str | None:
    if said.state not in OUTCOME_STEPS:
        return f"an end in state {said.state.name}"
    if not (0 <= said.started_at < SECONDS_MAX and 0 <= said.ended_at < SECONDS_MAX):
        return "times that no clock shows"
    if said.exit_code is not None and abs(said.exit_code) > EXIT_CODE_MAX:
        return "an exit code that no system has"
    return _outputs_problem(said.outputs) if said.outputs else None


def _outputs_problem(outputs: bytes) -> str | None:
    if len(outputs) > OUTPUTS_BYTES_MAX:
        return f"outputs of {len(outputs):,} bytes; the most is {OUTPUTS_BYTES_MAX:,}"
    try:
        _is_object(outputs)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return "outputs that are no JSON object"
    return None
