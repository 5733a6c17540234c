"""Real chaos: a cluster of real processes under load, broken by a seed, healed, and judged.

Theory of operation. `drive.py` starts servers (`postgres.py`, `zookeeper.py`) and daemons (`cluster.py`), each in a
network namespace of its own where root allows (`network.py`). A thread keeps workflows coming (`load.py`) while faults
(`faults.py`) happen by a plan that the seed alone decides (`plan.py`). Then everything is healed, and the runs that
were accepted must end.

Three witnesses speak, none of which is the code under test: the client notes which runs it was promised; triggers in
the database note every durable change of a run or an attempt in the transaction that makes it (`journal.py`); and
tasks themselves note their starts and ends and hold a lock of the kernel's, so that two that overlap are proven by it
(`witness.py`). `judge.py` merges what they say into one history, has it judged, and looks for what is left behind.
"""
