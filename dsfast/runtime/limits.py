"""The bounds of the command channel, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LinkLimits:
    """Sizes in bytes, times in seconds. The defaults suit a cluster in one data centre."""

    # The largest frame between daemons that know each other: a workflow of a million small tasks fits.
    body_bytes_max: int = 64 << 20
    # The largest frame from a stranger: a Hello with a few dozen worker groups fits, and memory is ours.
    stranger_body_bytes_max: int = 4 << 10
    # From connecting to Welcome. A loaded peer answers within milliseconds; a slow-loris does not get longer.
    handshake_seconds: float = 5.0
    # Connections that have proved nothing yet. One address may hold a whole cluster (loopback, NAT), so its share
    # is generous; the total keeps file descriptors for those who have proved themselves.
    half_open_max: int = 256
    half_open_per_address_max: int = 64
    # How often the dialling side asks, and how long either side bears silence: three questions unanswered.
    heartbeat_seconds: float = 1.0
    heartbeat_timeout_seconds: float = 3.0
    # Between tries to connect: from one that a restarting daemon does not notice to one that costs nothing.
    backoff_seconds_min: float = 0.05
    backoff_seconds_max: float = 5.0
    # A link that has lasted this long has worked: the next loss is met with an immediate try again.
    stable_seconds: float = 5.0
    # Handed to the kernel and not yet taken: enough to keep a fast network busy between two turns.
    write_high_water_bytes: int = 1 << 20
    # Waiting for a peer that reads too slowly. Two of the largest frames; a peer that needs more has stopped.
    unsent_bytes_max: int = 128 << 20
    # Connections that the kernel holds for us while a turn is computed: a cluster that dials all at once fits.
    backlog: int = 1024
    # What a clean shutdown waits for the last bytes to leave.
    close_seconds: float = 1.0
