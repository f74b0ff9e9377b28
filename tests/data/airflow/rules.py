"""Trigger rules and schedules."""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow import DAG

try:
    from airflow.providers.standard.operators.bash import BashOperator
    from airflow.task.trigger_rule import TriggerRule
except ImportError:
    from airflow.operators.bash import BashOperator
    from airflow.utils.trigger_rule import TriggerRule

ROME = pendulum.datetime(2026, 1, 1, tz="Europe/Rome")

with DAG("rules", schedule="30 2 * * *", start_date=ROME, catchup=False, default_args={"retries": 1}) as dag:
    x = BashOperator(task_id="x", bash_command="x")
    y = BashOperator(task_id="y", bash_command="y", execution_timeout=timedelta(minutes=90))
    ok = BashOperator(task_id="ok", bash_command="ok", trigger_rule=TriggerRule.ALL_SUCCESS)
    bad = BashOperator(task_id="bad", bash_command="bad", trigger_rule=TriggerRule.ONE_FAILED)
    worse = BashOperator(task_id="worse", bash_command="worse", trigger_rule="all_failed")
    end = BashOperator(task_id="end", bash_command="end", trigger_rule=TriggerRule.ALL_DONE)
    for_sure = BashOperator(task_id="for_sure", bash_command="sure", trigger_rule="none_failed")
    [x, y] >> ok
    [x, y] >> bad
    [x, y] >> worse
    [ok, bad, worse] >> end
    [x, y] >> for_sure

weekly = DAG("rules.weekly", schedule="@weekly", start_date=ROME, catchup=False)
BashOperator(task_id="only", bash_command="only", dag=weekly)

quarterly = DAG("rules.quarterly", schedule="@quarterly", start_date=ROME, catchup=False)
BashOperator(task_id="only", bash_command="only", dag=quarterly)

either = DAG("rules.either_day", schedule="0 6 13 * 5", start_date=ROME, catchup=False)
BashOperator(task_id="only", bash_command="only", dag=either)

never = DAG("rules.never", schedule=None, start_date=ROME)
BashOperator(task_id="only", bash_command="only", dag=never)
