"""Forms of dependencies. Airflow and `jobcloud import-airflow` must find the same."""

from __future__ import annotations

import datetime as dt
from datetime import datetime, timedelta
from textwrap import dedent

import pendulum
from airflow import DAG

try:
    from airflow.providers.standard.operators.bash import BashOperator
    from airflow.providers.standard.operators.empty import EmptyOperator as Empty
    from airflow.sdk import chain, cross_downstream
except ImportError:
    from airflow.models.baseoperator import chain, cross_downstream
    from airflow.operators.bash import BashOperator
    from airflow.operators.empty import EmptyOperator as Empty

DEFAULTS = {"owner": "data", "retries": 3, "retry_delay": timedelta(minutes=5), "depends_on_past": False}
LONG = {**DEFAULTS, "execution_timeout": timedelta(hours=1) * 2, "retries": 1 + 1}
PREFIX = "/srv" + "/bin"

with DAG(
    "shapes.arrows",
    description="arrows in both directions",
    default_args=DEFAULTS,
    schedule="@daily",
    start_date=datetime(2026, 1, 1),
    catchup=False,
) as dag:
    a = BashOperator(task_id="a", bash_command=f"{PREFIX}/a --fast")
    b, c = BashOperator(task_id="b", bash_command="b"), BashOperator(task_id="c", bash_command="c", retries=0)
    d = BashOperator(task_id="d", bash_command="d", trigger_rule="all_done")
    e = Empty(task_id="e")
    f = BashOperator(task_id="f", bash_command="f", retry_delay=10)
    a >> [b, c] >> d
    e << d << f
    c >> e

lists = DAG(
    "shapes.lists", schedule=timedelta(hours=6), start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), catchup=True
)
one, two = (Empty(task_id=f"t{1}", dag=lists), Empty(task_id="t2", dag=lists))
three, four = [Empty(task_id="t3", dag=lists), Empty(task_id="t4", dag=lists)]
five = Empty(task_id="t5", dag=lists, trigger_rule="one_success")
six = Empty(task_id="t6", dag=lists)
cross_downstream([one, two], [three, four])
[three, four] >> five
five.set_downstream(six)
six.set_upstream([one, two])

with DAG(
    dag_id="shapes.chains",
    default_args=LONG,
    schedule="15 3 * * MON-FRI",
    start_date=dt.datetime(2026, 3, 1),
    max_active_runs=1,
    tags=["a", "b"],
    catchup=False,
):
    first = BashOperator(
        task_id="first",
        bash_command=dedent(
            """
            echo one
            echo two
            """
        ),
    )
    left, right = Empty(task_id="left"), Empty(task_id="right")
    low, high = Empty(task_id="low"), Empty(task_id="high")
    last = BashOperator(task_id="last", bash_command="last ", env={"A": "1"}, append_env=True, cwd="/tmp/x y")
    chain(first, [left, right], [low, high], last)

if __name__ == "__main__":
    dag.test()
