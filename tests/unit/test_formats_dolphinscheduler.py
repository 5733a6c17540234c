"""Exports of DolphinScheduler, of all versions: what becomes of them, and what the notes say."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsfast.errors import UsageError
from dsfast.formats.dolphin_text import Segment, as_template, segments
from dsfast.formats.dolphinscheduler import read_export
from dsfast.formats.dump import dump_yaml
from dsfast.formats.imported import Imported
from dsfast.formats.yaml_workflow import load_workflow
from dsfast.model import Priority, Retry, Task, Workflow
from dsfast.tasks.shell import ShellConfig, ShellTask
from dsfast.tasks.templates import fill


def task(code: int, name: str, kind: str = "SHELL", params: Any = None, **settings: Any) -> dict[str, Any]:
    """A task as 3.2 exports it."""
    return {
        "id": code,
        "code": code,
        "name": name,
        "version": 1,
        "description": "",
        "taskType": kind,
        "taskParams": {"localParams": [], "rawScript": f"echo {name}", "resourceList": []}
        if params is None
        else params,
        "flag": "YES",
        "isCache": "NO",
        "taskPriority": "MEDIUM",
        "workerGroup": "default",
        "environmentCode": -1,
        "failRetryTimes": 0,
        "failRetryInterval": 1,
        "timeoutFlag": "CLOSE",
        "timeoutNotifyStrategy": None,
        "timeout": 0,
        "delayTime": 0,
        "taskGroupId": 0,
        "cpuQuota": -1,
        "memoryMax": -1,
        "taskExecuteType": "BATCH",
        **settings,
    }


def entry(*tasks: dict[str, Any], edges: list[tuple[int, int]] | None = None, **definition: Any) -> dict[str, Any]:
    """A workflow as 2.0 to 3.2 export it; without edges its tasks are roots."""
    pairs = [(0, each["code"]) for each in tasks] if edges is None else edges
    return {
        "processDefinition": {
            "code": 1000,
            "name": "daily",
            "globalParams": "[]",
            "executionType": "PARALLEL",
            **definition,
        },
        "processTaskRelationList": [
            {"preTaskCode": before, "postTaskCode": after, "conditionType": "NONE"} for before, after in pairs
        ],
        "taskDefinitionList": list(tasks),
        "schedule": None,
    }


def as_3_3(export: dict[str, Any]) -> dict[str, Any]:
    """The same in the words of 3.3."""
    return {
        "workflowDefinition": export["processDefinition"],
        "workflowTaskRelationList": export["processTaskRelationList"],
        "taskDefinitionList": export["taskDefinitionList"],
        "schedule": export["schedule"],
    }


def prop(name: str, value: Any, kind: str = "VARCHAR", direct: str = "IN") -> dict[str, Any]:
    return {"prop": name, "direct": direct, "type": kind, "value": value}


def imported(*entries: dict[str, Any]) -> Imported:
    return read_export(json.dumps(entries), "export.json")


def one(*tasks: dict[str, Any], **definition: Any) -> tuple[Workflow, list[str]]:
    """The only workflow, and its notes without their beginnings."""
    found = imported(entry(*tasks, **definition))
    return found.workflows[0], [note.partition(": ")[2] for note in found.notes]


def config(task: Task) -> dict[str, Any]:
    return msgspec.json.decode(task.config, type=dict[str, Any])


def script(script: str, *local: dict[str, Any]) -> dict[str, Any]:
    return {"rawScript": script, "localParams": list(local), "resourceList": []}


# -- shape ----------------------------------------------------------------------------------------------

DIAMOND = entry(
    task(1, "extract"),
    task(2, "left"),
    task(3, "right"),
    task(4, "load"),
    edges=[(0, 1), (1, 2), (1, 3), (2, 4), (3, 4), (1, 2)],
    description="every day",
    globalParams=json.dumps([prop("day", "20240101"), prop("rows", "5", "INTEGER"), prop("full", "true", "BOOLEAN")]),
)


@pytest.mark.parametrize("export", [DIAMOND, as_3_3(DIAMOND)])
def test_names_edges_and_params(export: dict[str, Any]) -> None:
    found = imported(export)
    (workflow,) = found.workflows
    assert {each.name: each.needs for each in workflow.tasks} == {
        "extract": (),
        "left": ("extract",),
        "right": ("extract",),
        "load": ("left", "right"),
    }
    assert (workflow.name, workflow.description) == ("daily", "every day")
    assert workflow.params == {"day": "20240101", "rows": 5, "full": True}
    assert found.notes == []
    assert load_workflow(dump_yaml(workflow)) == workflow


def test_one_workflow_need_not_be_in_a_list_and_may_be_an_answer_of_the_api() -> None:
    alone = read_export(json.dumps(DIAMOND)).workflows
    assert alone == imported(DIAMOND).workflows
    assert read_export(json.dumps({"code": 0, "msg": "success", "data": DIAMOND})).workflows == alone


def test_numbers_may_be_text_and_settings_may_be_json_in_text() -> None:
    given = task(1, "a", failRetryTimes="2", failRetryInterval="3", taskParams=json.dumps(script("echo hi")))
    workflow, _ = one(given)
    assert workflow.tasks[0].retry == Retry(limit=2, delay=180.0)
    assert config(workflow.tasks[0]) == {"script": "echo hi", "shell": "bash"}


def test_several_workflows_of_one_name_get_names_of_their_own() -> None:
    found = imported(entry(task(1, "a")), entry(task(2, "b"), code=1001), entry(name="empty", code=1002))
    assert [workflow.name for workflow in found.workflows] == ["daily", "daily-2"]
    assert found.notes == [
        "workflow 'daily-2': was named 'daily' there",
        "workflow 'empty': left out, because it has no tasks",
    ]


def test_names_that_are_not_allowed_here_are_changed_with_a_note() -> None:
    workflow, notes = one(task(1, "a/b"), task(2, "a_b"), task(3, ""), name="{x} ")
    assert [each.name for each in workflow.tasks] == ["a_b", "a_b-2", "unnamed"]
    assert workflow.name == "_x_"
    assert "was named 'a/b' there" in notes
    assert "was named '{x} ' there" in notes


def test_the_form_of_1_x() -> None:
    body = {
        "globalParams": [prop("day", "20240101")],
        "timeout": 0,
        "tenantId": 3,
        "tasks": [
            {
                "id": "tasks-1", "name": "extract", "type": "SHELL", "runFlag": "NORMAL", "desc": "gets it",
                "params": script("echo ${day}"), "preTasks": [], "maxRetryTimes": "3", "retryInterval": "1",
                "timeout": {"strategy": "FAILED", "interval": 10, "enable": True}, "taskInstancePriority": "HIGHEST",
                "workerGroup": "big", "dependence": {},
            },
            {
                "id": "tasks-2", "name": "gate", "type": "CONDITIONS", "runFlag": "FORBIDDEN", "params": {},
                "preTasks": '["extract"]', "maxRetryTimes": "0", "timeout": {"strategy": "", "enable": False},
                "dependence": {"relation": "AND"}, "conditionResult": {"successNode": ["load"], "failedNode": [""]},
            },
            {"name": "load", "type": "PYTHON", "params": script("print(1)"), "preTasks": ["gate", "extract"]},
        ],
    }  # fmt: skip
    found = imported(
        {"processDefinitionName": "old", "processDefinitionJson": json.dumps(body), "scheduleCrontab": "0 0 * * *"}
    )
    (workflow,) = found.workflows
    extract, gate, load = workflow.tasks
    assert config(extract) == {"script": "# gets it\necho {{ params.day }}", "shell": "bash"}
    assert (extract.retry, extract.timeout) == (Retry(limit=3, delay=60.0), 600.0)
    assert (extract.priority, extract.group) == (Priority.HIGHEST, "big")
    assert (gate.enabled, gate.needs, load.needs) == (False, ("extract",), ("gate", "extract"))
    assert '"successNode": [\n#       "load"' in config(gate)["script"]
    assert load.type == "python"
    assert "workflow 'old': not carried over: its tenant with the id 3" in found.notes
    assert "workflow 'old': not carried over: its schedule, scheduleCrontab 0 0 * * *" in found.notes


# -- settings of tasks ----------------------------------------------------------------------------------


def test_what_every_task_has_is_carried_over() -> None:
    workflow, notes = one(
        task(
            1, "a", flag="NO", taskPriority="LOW", workerGroup="big", failRetryTimes=2, failRetryInterval=90,
            timeoutFlag="OPEN", timeoutNotifyStrategy="WARNFAILED", timeout=15, delayTime=5,
        )
    )  # fmt: skip
    (only,) = workflow.tasks
    assert not only.enabled
    assert (only.priority, only.group, only.timeout, only.delay) == (Priority.LOW, "big", 900.0, 300.0)
    assert only.retry == Retry(limit=2, delay=5400.0, delay_max=5400.0)
    assert only.retry.wait(1) == 5400.0
    assert notes == []


def test_what_is_not_carried_over_is_listed() -> None:
    export = entry(
        task(
            1, "a",
            params={**script("echo hi"), "resourceList": [{"id": 7, "resourceName": "/x.jar"}, {"id": 8}], "odd": [1]},
            environmentCode=55, taskGroupId=3, cpuQuota=10, memoryMax=512, isCache="YES", taskExecuteType="STREAM",
            timeoutFlag="OPEN", timeoutNotifyStrategy="WARN", timeout=15,
        ),
        edges=[(0, 1), (9, 1)],
        timeout=30, executionType="SERIAL_WAIT", releaseState="OFFLINE", tenantCode="etl", warningGroupId=4,
        locations='[{"taskCode":1,"x":1,"y":2}]', globalParams=json.dumps([prop("o", "", direct="OUT")]),
    )  # fmt: skip
    export["schedule"] = {"crontab": "0 0 1 * * ? *", "timezoneId": None, "failureStrategy": "END"}
    assert imported(export).notes == [
        "workflow 'daily': not carried over: the global parameter 'o', which goes OUT",
        "workflow 'daily': not carried over: a relation from 9 to 1, as there is no such task",
        "workflow 'daily': not carried over: its schedule, crontab 0 0 1 * * ? *, failureStrategy END",
        "workflow 'daily': not carried over: its timeout of 30 minutes, which only alerts",
        "workflow 'daily': not carried over: its execution type SERIAL_WAIT; here runs may overlap",
        "workflow 'daily': it was offline there; here every workflow can be run",
        "workflow 'daily': not carried over: its tenant etl",
        "workflow 'daily': not carried over: its warning group 4",
        "workflow 'daily': not carried over: the places of its tasks in the editor",
        "workflow 'daily', task 'a': not carried over: its timeout of 15 minutes, which only warns",
        "workflow 'daily', task 'a': not carried over: its environment with the code 55",
        "workflow 'daily', task 'a': not carried over: its task group with the id 3",
        "workflow 'daily', task 'a': not carried over: its CPU quota of 10",
        "workflow 'daily', task 'a': not carried over: its memory limit of 512",
        "workflow 'daily', task 'a': not carried over: its result cache YES",
        "workflow 'daily', task 'a': not carried over: its execution type STREAM",
        "workflow 'daily', task 'a': not carried over: its resource files /x.jar, 8",
        "workflow 'daily', task 'a': not carried over: its setting odd, [1]",
    ]


def test_a_type_that_there_is_not_here_fails_with_its_settings_in_names() -> None:
    conditions = {
        "dependence": {"dependTaskList": [{"dependItemList": [{"depTaskCode": 1, "status": "SUCCESS"}]}]},
        "conditionResult": {"successNode": [2], "failedNode": [77]},
    }
    switch = {"switchResult": {"dependTaskList": [{"condition": "${x} > 1", "nextNode": 2}], "nextNode": [1]}}
    found = imported(
        entry(
            task(1, "a"),
            task(2, "b"),
            task(3, "gate", "CONDITIONS", conditions),
            task(4, "fork", "SWITCH", switch),
            task(5, "child", "SUB_PROCESS", {"processDefinitionCode": 2000}),
            task(
                6,
                "wait",
                "DEPENDENT",
                {"dependItemList": [{"definitionCode": 2000, "depTaskCode": 0}, {"depTaskCode": 9}]},
            ),
            task(7, "query", "SQL", {"sql": "select '{{ x }}'"}, failRetryTimes=2),
            task(8, "blank", "SHELL", script("  ")),
        ),
        entry(task(9, "other"), code=2000, name="second"),
    )
    scripts = {each.name: config(each)["script"] for each in found.workflows[0].tasks}
    assert '"depTaskCode": "a"' in scripts["gate"]
    assert '"successNode": [\n#       "b"\n#     ],\n#     "failedNode": [\n#       77' in scripts["gate"]
    assert '"nextNode": "b"' in scripts["fork"]
    assert '"nextNode": [\n#       "a"' in scripts["fork"]
    assert '"processDefinitionCode": "second"' in scripts["child"]
    assert '"definitionCode": "second",\n#       "depTaskCode": 0' in scripts["wait"]
    assert '"depTaskCode": "other"' in scripts["wait"]
    assert "select '{{ \"{{\" | raw }} x }}'" in scripts["query"]
    assert "which has no script" in scripts["blank"]
    for name in ("gate", "fork", "child", "wait", "query", "blank"):
        assert scripts[name].endswith(">&2\nexit 1\n")
        assert any(f"task '{name}': is a " in note and "it fails until" in note for note in found.notes)
    assert "workflow 'daily', task 'gate': its failedNode 77 is not in the export" in found.notes


# -- references in scripts ------------------------------------------------------------------------------


def shell_script(text: str, *local: dict[str, Any], **definition: Any) -> tuple[str, list[str]]:
    workflow, notes = one(task(1, "a", params=script(text, *local)), **definition)
    return config(workflow.tasks[0])["script"], notes


def test_params_are_filled_in_and_shell_variables_stay() -> None:
    text, notes = shell_script("echo ${day} ${HOME} $day ${#x}", globalParams=json.dumps([prop("day", "20240101")]))
    assert text == "echo {{ params.day }} ${HOME} $day ${#x}"
    assert notes == []


def test_a_param_that_quoting_would_change_is_filled_in_raw_with_a_note() -> None:
    params = json.dumps([prop("opts", "-l -a"), prop("none", ""), prop("a.b", "x")])
    text, notes = shell_script("ls ${opts} ${none} ${a.b}", globalParams=params)
    assert text == 'ls {{ params.opts | raw }} {{ params.none | raw }} {{ params["a.b"] }}'
    assert notes == [
        "the param 'opts' is filled in as it is, without quoting, as it was there",
        "the param 'none' is filled in as it is, without quoting, as it was there",
    ]


def test_a_param_made_of_others_is_put_into_the_script_as_text() -> None:
    params = json.dumps([prop("day", "20240101"), prop("path", "/data/${day}"), prop("loop", "${loop}")])
    text, notes = shell_script("ls ${path} ${loop}", globalParams=params)
    assert text == "ls /data/{{ params.day }} ${loop}"
    assert "the param 'path' refers to others: its text '/data/${day}' is put into the script" in notes


def test_local_parameters_are_written_into_the_script() -> None:
    params = json.dumps([prop("day", "1"), prop("table", "t")])
    local = [prop("table", "orders_${day}"), prop("unused", "x"), prop("day", "")]
    text, notes = shell_script("load ${table} ${day}", *local, globalParams=params)
    assert text == "load orders_{{ params.day }} {{ params.day }}"
    assert notes == [
        "its local parameter 'table', 'orders_${day}', is written into its script",
        "not carried over: its local parameter 'unused', 'x', which nothing uses",
    ]


def test_outputs_of_earlier_tasks_are_read_from_the_nearest() -> None:
    out = prop("n", "", direct="OUT")
    found = imported(
        entry(
            task(1, "far away", params=script("echo '${setValue(n=1)}'", out)),
            task(2, "near", params=script("echo '${setValue(n=2)}'", out)),
            task(3, "reader", params=script("echo ${n}")),
            task(4, "stranger", params=script("echo ${n}")),
            edges=[(0, 1), (1, 2), (2, 3), (0, 4)],
            globalParams=json.dumps([prop("n", "7")]),
        )
    )
    scripts = {each.name: config(each)["script"] for each in found.workflows[0].tasks}
    assert scripts["far away"] == "echo '${setValue(n=1)}'"
    assert scripts["reader"] == "echo {{ tasks.near.n | raw }}"
    assert scripts["stranger"] == "echo {{ params.n }}"
    assert found.notes == [
        "workflow 'daily', task 'reader': 'n' is handed on by 'near', 'far away': that of 'near' is used"
    ]


def test_times_and_built_in_values_are_noted() -> None:
    params = json.dumps([prop("day", "$[yyyyMMdd-1]")])
    text, notes = shell_script("echo ${day} ${system.biz.date} $[HHmm]", globalParams=params)
    assert text == "echo {{ params.day }} ${system.biz.date} $[HHmm]"
    assert notes == [
        "the param 'day' is a time that is not computed here, '$[yyyyMMdd-1]': give its value with every run",
        "${system.biz.date} has no value here",
        "the time $[HHmm] is not computed here",
    ]


def test_python_gets_its_values_in_the_text_as_it_did_there() -> None:
    params = json.dumps([prop("day", "it's")])
    source = "print('''${day}''', {{}})"
    workflow, _ = one(
        task(1, "a", "PYTHON", script(source)), task(2, "b", "PYTHON", script("x = {{1}}")), globalParams=params
    )
    first, second = workflow.tasks
    assert config(first)["source"] == "exec(script)"
    assert config(first)["args"] == {"script": "print('''{{ params.day }}''', {{ \"{{\" | raw }}}})"}
    assert config(second) == {"source": "x = {{1}}"}


PIECES = st.lists(
    st.one_of(
        st.text("{}%#$ab \n'\"", max_size=6), st.sampled_from(["${day}", "${note}", "{{", "{%", "#}}", "${x}", "}}"])
    ),
    max_size=12,
)


@given(PIECES)
@settings(deadline=None)
def test_a_filled_in_template_is_the_text_dolphinscheduler_would_have_run(pieces: list[str]) -> None:
    text = "".join(pieces)
    meanings = {"day": Segment("params.day", is_read=True), "note": Segment("{ ${day}{")}
    template = as_template(segments(text, meanings.get))
    expected = text.replace("${note}", "{ 20240101{").replace("${day}", "20240101")
    context = {"params": {"day": "20240101"}}
    filled, _ = fill(ShellTask(), ShellConfig(script=template), {}, context)
    assert filled.script == expected


# -- what is not an export ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "export.json: this is not JSON"),
        ("{", "export.json: this is not JSON"),
        (b"\xff\xfe", "export.json: this is not JSON"),
        ("[" * 100_000, "depth limit exceeded"),
        ("[]", "the export holds no workflow"),
        ("[1]", "every workflow must be an object"),
        ("{}", "there is no processDefinition, workflowDefinition or processDefinitionJson"),
        ('{"processDefinition": {"name": 5}}', "name must be text, not a whole number"),
        ('{"processDefinition": {"name": "x"}, "taskDefinitionList": 5}', "must be a list, not a whole number"),
        ('{"processDefinition": {"name": "x"}}', "the export holds no workflow that has tasks"),
        ('{"processDefinitionJson": "{"}', "this is not an export of DolphinScheduler"),
        ('{"processDefinitionJson": "5"}', "must be a mapping, not a whole number"),
        (json.dumps(entry(task(1, "a"), globalParams="5")), "parameters of the export cannot be read"),
        (json.dumps(entry(task(1, "a"), task(1, "b"))), "two tasks of the workflow 'daily' have the code 1"),
        (json.dumps(entry(task(1, "a"), task(2, "b"), edges=[(1, 2), (2, 1)])), "in a circle: a -> b -> a"),
    ],
)  # fmt: skip
def test_what_is_not_an_export_is_refused_with_a_sentence(text: str | bytes, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_export(text, "export.json")
    assert sentence in str(caught.value)


def test_params_that_hold_each_other_do_not_grow_without_end() -> None:
    params = [prop(f"p{level}", f"${{p{level + 1}}}" * 100) for level in range(8)]
    with pytest.raises(UsageError, match="hold each other so often"):
        one(task(1, "a", params=script("${p0}")), globalParams=json.dumps(params))


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-1, 9), st.text(max_size=4)),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=4), inner, max_size=2)),
    max_leaves=4,
)


@given(st.data())
@settings(deadline=None)
def test_any_values_are_imported_or_refused_with_a_sentence(data: st.DataObject) -> None:
    keys = sorted(set(task(1, "a")) - {"id"})
    broken = task(1, "a") | data.draw(st.dictionaries(st.sampled_from(keys), JSON, max_size=4))
    export = entry(broken, edges=[(0, 1)]) | data.draw(st.dictionaries(st.sampled_from(["schedule"]), JSON))
    export["processDefinition"] |= data.draw(
        st.dictionaries(st.sampled_from(["name", "globalParams", "timeout", "locations", "code"]), JSON, max_size=2)
    )
    try:
        found = imported(export)
    except UsageError:
        return
    assert load_workflow(dump_yaml(found.workflows[0])) == found.workflows[0]
