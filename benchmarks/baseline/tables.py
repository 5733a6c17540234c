"""The tables that matter, the states, and every statement of the baseline by its name.

Names follow the original's tables without their prefix, and so do the numbers of the states (1.2.0 ExecutionStatus).
Reads are of whole rows, as the original's mappers do them.
"""

from __future__ import annotations

from enum import IntEnum


class State(IntEnum):
    """Of workflows and tasks alike, as in 1.2.0."""

    SUBMITTED = 0
    RUNNING = 1
    READY_STOP = 4
    STOP = 5
    FAILURE = 6
    SUCCESS = 7
    NEED_FAULT_TOLERANCE = 8
    KILL = 9

    @property
    def finished(self) -> bool:
        return self >= State.STOP

    @property
    def failed(self) -> bool:
        return self in (State.FAILURE, State.NEED_FAULT_TOLERANCE)


UNFINISHED = "(0, 1, 2, 4)"  # what a failover looks for
START, RECOVER = 0, 7  # command types

TABLES = """
CREATE TABLE process_definition (id SERIAL PRIMARY KEY, name TEXT NOT NULL, release_state INT NOT NULL DEFAULT 1,
    flag INT NOT NULL DEFAULT 1, tenant_id INT NOT NULL DEFAULT 1, user_id INT NOT NULL DEFAULT 1,
    process_definition_json TEXT NOT NULL);
CREATE TABLE command (id SERIAL PRIMARY KEY, command_type INT NOT NULL, process_definition_id INT NOT NULL,
    command_param TEXT NOT NULL, update_time FLOAT8 NOT NULL);
CREATE TABLE process_instance (id SERIAL PRIMARY KEY, process_definition_id INT NOT NULL, state INT NOT NULL,
    priority INT NOT NULL DEFAULT 2, worker_group_id INT NOT NULL DEFAULT -1,
    host TEXT, start_time FLOAT8, end_time FLOAT8, process_instance_json TEXT NOT NULL);
CREATE INDEX process_instance_index ON process_instance (process_definition_id, id);
CREATE TABLE task_instance (id SERIAL PRIMARY KEY, name TEXT NOT NULL, process_definition_id INT NOT NULL,
    process_instance_id INT NOT NULL, task_json TEXT NOT NULL, state INT NOT NULL, flag INT NOT NULL DEFAULT 1,
    retry_times INT NOT NULL DEFAULT 0, max_retry_times INT NOT NULL DEFAULT 0, priority INT NOT NULL DEFAULT 2,
    worker_group_id INT NOT NULL DEFAULT -1, host TEXT, pid INT NOT NULL DEFAULT 0, submit_time FLOAT8,
    start_time FLOAT8, end_time FLOAT8, log_path TEXT);
CREATE INDEX task_instance_index ON task_instance (process_instance_id);
CREATE TABLE worker_group (id SERIAL PRIMARY KEY, name TEXT NOT NULL, ip_list TEXT NOT NULL);
CREATE TABLE tenant (id SERIAL PRIMARY KEY, tenant_code TEXT NOT NULL, queue_id INT NOT NULL);
CREATE TABLE queue (id SERIAL PRIMARY KEY, queue_name TEXT NOT NULL);
CREATE TABLE ds_user (id SERIAL PRIMARY KEY, user_name TEXT NOT NULL, tenant_id INT NOT NULL);
CREATE TABLE alert (id SERIAL PRIMARY KEY, title TEXT NOT NULL, create_time FLOAT8 NOT NULL);
INSERT INTO queue (queue_name) VALUES ('default');
INSERT INTO tenant (tenant_code, queue_id) VALUES ('default', 1);
INSERT INTO ds_user (user_name, tenant_id) VALUES ('user', 1);
"""

DEFINE = "INSERT INTO process_definition (name, process_definition_json) VALUES ($1, $2) RETURNING id"
DEFINITION = "SELECT * FROM process_definition WHERE id = $1"
COMMAND = """SELECT c.* FROM command c JOIN process_definition d ON c.process_definition_id = d.id
    WHERE d.release_state = 1 AND d.flag = 1 ORDER BY c.update_time ASC LIMIT 1"""
ADD_COMMAND = """INSERT INTO command (command_type, process_definition_id, command_param, update_time)
    VALUES ($1, $2, $3, $4) RETURNING id"""
DELETE_COMMAND = "DELETE FROM command WHERE id = $1"

INSTANCE = "SELECT * FROM process_instance WHERE id = $1"
ADD_INSTANCE = """INSERT INTO process_instance (process_definition_id, state, host, start_time, process_instance_json)
    VALUES ($1, $2, $3, $4, $5) RETURNING *"""
TAKE_INSTANCE = "UPDATE process_instance SET state = $2, host = $3 WHERE id = $1 RETURNING *"
SET_INSTANCE_STATE = "UPDATE process_instance SET state = $2, end_time = $3 WHERE id = $1"
LOST_INSTANCES = f"SELECT * FROM process_instance WHERE ($1::text IS NULL OR host = $1) AND state IN {UNFINISHED}"
RELEASE_INSTANCE = "UPDATE process_instance SET host = 'null' WHERE id = $1"

TASK = "SELECT * FROM task_instance WHERE id = $1"
TASKS = "SELECT * FROM task_instance WHERE process_instance_id = $1 AND flag = 1 ORDER BY id DESC"
ADD_TASK = """INSERT INTO task_instance (name, process_definition_id, process_instance_id, task_json, state,
    retry_times, max_retry_times, priority, submit_time) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING *"""
RETIRE_TASK = "UPDATE task_instance SET flag = 0 WHERE id = $1"
SET_TASK_RUNNING = "UPDATE task_instance SET state = $2, start_time = $3, host = $4, log_path = $5 WHERE id = $1"
SET_TASK_PID = "UPDATE task_instance SET pid = $2 WHERE id = $1"
SET_TASK_STATE = "UPDATE task_instance SET state = $2, end_time = $3 WHERE id = $1"
SET_TASK_ENDED = "UPDATE task_instance SET state = $2, end_time = $3, pid = $4 WHERE id = $1"
LOST_TASKS = f"""SELECT * FROM task_instance WHERE ($1::text IS NULL OR host = $1) AND state IN {UNFINISHED}"""

WORKER_GROUP = "SELECT * FROM worker_group WHERE id = $1"
TENANT = "SELECT * FROM tenant WHERE id = $1"
USER = "SELECT * FROM ds_user WHERE id = $1"
USER_QUEUE = "SELECT q.* FROM tenant t JOIN queue q ON t.queue_id = q.id WHERE t.id = $1"
ADD_ALERT = "INSERT INTO alert (title, create_time) VALUES ($1, $2)"
