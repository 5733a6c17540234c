"""Every constant of the baseline, with the value that DolphinScheduler ships and where it says so.

Versions: `queue` is 1.2.0 (tasks travel as ZooKeeper nodes), `tcp` is 1.3.5 (tasks travel as frames). `poll_seconds` is
the one sleep of all loops: a tenth of it shows the same design at its best.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Mode = Literal["queue", "tcp"]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What one daemon is told. Times in seconds, memory in GB."""

    mode: Mode
    host: str  # each daemon has a loopback address of its own, as each had a machine of its own
    database: str
    zookeeper: str
    root: str  # /dolphinscheduler in the original; one per cluster here
    folder: str

    poll_seconds: float = 1.0  # Constants.SLEEP_TIME_MILLIS, every loop
    # 1.2.0 asks 300 s (zookeeper.session.timeout, multiplied by 1000), a server with tickTime 2000 grants 20 of them.
    session_seconds: float = 40.0  # 1.3.5: 60
    heartbeat_seconds: float = 10.0  # master.heartbeat.interval, worker.heartbeat.interval
    heartbeat_delay_seconds: float = 5.0  # 1.2.0 MasterServer: the first heartbeat
    exec_threads: int = 100  # master.exec.threads (workflows), worker.exec.threads (tasks)
    task_threads: int = 20  # master.exec.task.number: tasks of one workflow at a time
    commit_tries: int = 5  # master.task.commit.retryTimes
    commit_pause_seconds: float = 0.1  # master.task.commit.interval; 1.3.5: 1
    fetch_tasks: int = 3  # worker.fetch.task.num; 1.3.5: master.dispatch.task.num
    load_max: float = 100.0  # master.max.cpuload.avg, worker.max.cpuload.avg; 1.3.5: cores x 2
    reserved_gb: float = 0.1  # master.reserved.memory; the shipped worker keeps 1.0, 1.3.5 both 0.3
    stop_seconds: float = 3.0  # a server that was judged dead waits so long before it ends
    # 1.2.0 FetchTaskThread.waitForTaskInstance waits for a row that is not committed yet only once in a worker's life,
    # then takes the task's node away: the task is lost. False waits for every row (and never for one that is there).
    keep_race: bool = False
    report_seconds: float = 300.0  # 1.3.5 RetryReportTaskStatusThread
    weights_seconds: float = 5.0  # 1.3.5 LowerWeightHostManager
    send_tries: int = 4  # 1.3.5 NettyExecutorManager: retryCount 3 counted down to 0
    send_pause_seconds: float = 0.1  # between them


SHIPPED_1_3_5 = {"session_seconds": 60.0, "commit_pause_seconds": 1.0, "reserved_gb": 0.3}


def shipped(mode: Mode, **settings: object) -> Settings:
    """The settings of a version as shipped, with those named changed."""
    values = SHIPPED_1_3_5 if mode == "tcp" else {}
    return msgspec.convert({"mode": mode} | values | settings, Settings)
