"""What other schedulers reach on the same work: measured once, on another machine of this kind, not in the same run.

Two cores of an AMD EPYC under KVM, Debian 12, Python 3.11, two workers each, from submit to every result known, medians
of five. Orders of magnitude, to see where a figure stands; compare by ratio only what one run has measured.
`durable` systems commit every state to disk as dsfast does.
"""

from __future__ import annotations

from benchmarks.figures import Beside

HOP_DURABLE_MS = Beside(1.63, "DBOS 3.4, durable, elsewhere")
HOP_VOLATILE_MS = Beside(0.64, "huey 3.5 on Redis, not durable, elsewhere")
FLAT_DURABLE = Beside(672, "procrastinate 3.10, durable, elsewhere")
FLAT_VOLATILE = Beside(3_700, "huey 3.5 on Redis, not durable, elsewhere")
LAYERS_DURABLE = Beside(748, "procrastinate 3.10, durable, elsewhere")
CPU_VOLATILE_US = Beside(44, "HyperQueue 0.27, not durable, elsewhere")
