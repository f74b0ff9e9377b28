"""The worker for Java: nested classes, both generations of Elastic-Job, listeners, handlers, jobs that misbehave."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.executor_kit import needs_jdk, wait_until
from tests.executor_kit.workers import WORKER_SOURCES, WorkerProcess, compile_java

pytestmark = needs_jdk

KIT = Path(__file__).parents[1] / "executor_kit"
# The job interfaces of ElasticJob 3.0.5, as far as its jobs need them.
LATER = {
    "api/ElasticJob": "package org.apache.shardingsphere.elasticjob.api; public interface ElasticJob {}",
    "spi/executor/item/param/ShardingContext": (
        "package org.apache.shardingsphere.elasticjob.spi.executor.item.param;"
        "public final class ShardingContext { public String getShardingParameter() { return null; } }"
    ),
    "simple/job/SimpleJob": (
        "package org.apache.shardingsphere.elasticjob.simple.job;"
        "public interface SimpleJob extends org.apache.shardingsphere.elasticjob.api.ElasticJob {"
        "void execute(org.apache.shardingsphere.elasticjob.spi.executor.item.param.ShardingContext c); }"
    ),
    "dataflow/job/DataflowJob": (
        "package org.apache.shardingsphere.elasticjob.dataflow.job;"
        "public interface DataflowJob<T> extends org.apache.shardingsphere.elasticjob.api.ElasticJob {"
        "java.util.List<T> fetchData(org.apache.shardingsphere.elasticjob.spi.executor.item.param.ShardingContext c);"
        "void processData(org.apache.shardingsphere.elasticjob.spi.executor.item.param.ShardingContext c,"
        "java.util.List<T> data); }"
    ),
    "Jobs": """
        package later;
        import java.util.*;
        import org.apache.shardingsphere.elasticjob.spi.executor.item.param.ShardingContext;
        public class Jobs {
            public static class Simple implements org.apache.shardingsphere.elasticjob.simple.job.SimpleJob {
                public void execute(ShardingContext c) { System.out.println("later " + c.getShardingParameter()); }
            }
            public static class Flow implements org.apache.shardingsphere.elasticjob.dataflow.job.DataflowJob<String> {
                public List<String> fetchData(ShardingContext c) { return Arrays.asList(c.getShardingParameter()); }
                public void processData(ShardingContext c, List<String> data) { System.out.println("later " + data); }
            }
        }""",
}


@pytest.fixture(scope="module")
def worker_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_java(tmp_path_factory.mktemp("worker"), [*WORKER_SOURCES.rglob("*.java")])


@pytest.fixture(scope="module")
def odd_classes(tmp_path_factory: pytest.TempPathFactory, worker_classes: Path) -> Path:
    """The directory of an app: classes of the kit, and jobs that were compiled for ElasticJob 3.0.5."""
    out = compile_java(tmp_path_factory.mktemp("odd"), [*(KIT / "java_odd").rglob("*.java")], worker_classes)
    shutil.copytree(KIT / "java_odd" / "META-INF", out / "META-INF")
    sources = tmp_path_factory.mktemp("later")
    for name, text in LATER.items():
        (sources / name).parent.mkdir(parents=True, exist_ok=True)
        (sources / f"{name}.java").write_text(text)
    later = compile_java(tmp_path_factory.mktemp("later-classes"), [*sources.rglob("*.java")])
    shutil.copytree(later / "later", out / "later")
    return out


Begin = Callable[..., WorkerProcess]


@pytest.fixture
def begin(tmp_path: Path, worker_classes: Path) -> Iterator[Begin]:
    """Starts a worker on a copy of an app's directory."""
    started: list[WorkerProcess] = []

    def start(app: Path, *options: str) -> WorkerProcess:
        shutil.copytree(app, tmp_path / "app")
        command = ["java", "-XX:TieredStopAtLevel=1", *options, "-cp", str(worker_classes), "jobcloud.worker.Main"]
        started.append(WorkerProcess(command, tmp_path))
        return started[-1]

    yield start
    for worker in started:
        worker.close()


def test_worker_is_compiled_for_java_8(worker_classes: Path) -> None:
    versions = {file.read_bytes()[6:8] for file in worker_classes.rglob("*.class")}
    assert versions == {(52).to_bytes(2, "big")}, "the major version of a class file of Java 8 is 52"


def test_nested_class_has_two_spellings(begin: Begin, odd_classes: Path) -> None:
    worker = begin(odd_classes)
    for number, name in enumerate(("odd.Odd$Counts", "odd.Odd.Counts", "odd.Odd:Counts"), 1):
        end = worker.end_of(f"t{number}", jobClass=name)
        assert (end["state"], end["result"]) == ("finished", number), end


def test_job_compiled_for_either_package_of_3_runs(begin: Begin, odd_classes: Path) -> None:
    worker = begin(odd_classes)
    assert worker.end_of("simple", jobClass="later.Jobs$Simple", parameter="Paris")["state"] == "finished"
    assert worker.end_of("flow", jobClass="later.Jobs$Flow", jobType="DATAFLOW", parameter="Rom")["state"] == "finished"
    assert (worker.printed("simple"), worker.printed("flow")) == ("later Paris\n", "later [Rom]\n")


@pytest.mark.parametrize(
    ("job", "cause", "says"),
    [
        ({"jobClass": "odd.Odd$Inner"}, "import", "inner class of odd.Odd; declare it static"),
        ({"jobClass": "odd.Odd$Unmade"}, "import", "InstantiationException"),
        ({"jobClass": "odd.Odd$Missing"}, "import", "odd.Odd$Missing"),
        ({"jobClass": "odd.Odd"}, "import", "must be a SimpleJob"),
        ({"jobClass": "odd.Odd$BadError"}, "exception", "cannot be reported"),
        ({"jobClass": "odd.Odd$NoMemory"}, "out_of_memory", "as if"),
        ({"applicationContext": "odd.Odd$NoMap", "beanName": "b"}, "context", "must be a Map of beans"),
        ({"applicationContext": "classpath:a.xml", "beanName": "b"}, "context", "the JARs of the app lack Spring"),
        ({"jobClass": "odd.Odd$Threaded", "listener": ["ONCE"]}, "import", "name it as distributedListener"),
        ({"jobClass": "odd.Odd$Threaded", "listener": ["NEVER"]}, "import", "known: FIRST, LAST, ONCE"),
        ({"jobClass": "odd.Odd$Threaded", "errorHandler": "odd.Odd$First"}, "import", "must be a JobExceptionHandler"),
        (
            {"jobClass": "odd.Odd$Threaded", "executorService": "odd.Odd$First"},
            "import",
            "must be an ExecutorServiceHandler",
        ),
        ({"jobClass": "odd.Odd$Threaded", "executorService": "odd.Odd$NoThreads"}, "import", "takes no shard"),
    ],
)
def test_failure_has_a_cause_and_a_message_and_leaves_the_worker_usable(
    begin: Begin, odd_classes: Path, job: dict[str, Any], cause: str, says: str
) -> None:
    worker = begin(odd_classes)
    end = worker.end_of("t1", **job)
    assert (end["state"], end["cause"]) == ("failed", cause)
    assert says in end["message"], end
    assert worker.end_of("t2", jobClass="odd.Odd$Counts")["state"] == "finished"


def test_listeners_of_3_are_called_by_their_type_in_their_order(begin: Begin, odd_classes: Path) -> None:
    worker = begin(odd_classes)
    job: dict[str, Any] = {
        "jobClass": "odd.Odd$Threaded",
        "item": 2,
        "parameter": "Paris",
        "listener": ["LAST", "odd.Odd$First"],
    }
    assert worker.end_of("t1", **job)["state"] == "finished"
    assert worker.printed("t1") == "before FIRST {2=Paris}\nbefore LAST {2=Paris}\nt1\nafter LAST\nafter FIRST\n"


def test_listener_of_a_run_is_one_of_either_generation(begin: Begin, odd_classes: Path) -> None:
    worker = begin(odd_classes)
    job = {"jobClass": "odd.Odd$Counts", "distributedListener": "ONCE"}
    assert worker.listen("b", "before", {"parameters": {"1": "é", "0": "a"}}, **job)["state"] == "finished"
    assert worker.printed("b") == "once before {0=a, 1=é}\n"
    end = worker.listen("a", "after", {"outcomes": {}}, **job)
    assert (end["state"], end["cause"]) == ("failed", "listener")
    assert "the books do not balance" in end["message"]
    job["distributedListener"] = "odd.Odd$First"
    assert "must be an AbstractDistributeOnceElasticJobListener" in worker.listen("c", "before", {}, **job)["message"]


@pytest.mark.parametrize(
    ("handler", "printed"),
    [
        ("odd.Odd$Tells", "told of settle: no stock\n"),
        ("TELLS", "initialised with 0, told of settle: no stock\n"),
    ],
)
def test_error_handler_is_told_and_the_shard_has_failed(
    begin: Begin, odd_classes: Path, handler: str, printed: str
) -> None:
    worker = begin(odd_classes)
    end = worker.end_of("t1", jobClass="odd.Odd$Raises", errorHandler=handler)
    assert (end["state"], end["cause"]) == ("failed", "exception")
    assert worker.printed("t1") == printed
    worker.send({"type": "stop"})
    assert worker.process.wait(30) == 0
    assert ("the handler is closed" in worker.log()) is (handler == "TELLS")


@pytest.mark.parametrize(
    ("handler", "thread"),
    [("odd.Odd$OneThread", "one of settle"), ("TYPED", "typed of settle"), ("SINGLE_THREAD", "settle")],
)
def test_shards_run_in_the_threads_of_their_job(begin: Begin, odd_classes: Path, handler: str, thread: str) -> None:
    worker = begin(odd_classes)
    job: dict[str, Any] = {"jobClass": "odd.Odd$Threaded", "executorService": handler}
    worker.run("runs", parameter="wait", **job)
    wait_until(lambda: worker.printed("runs"), "the first shard runs")
    worker.run("waits", **job)
    worker.run("stopped", **job)
    worker.receive("started", "stopped")
    worker.send({"type": "cancel", "task": "stopped"})
    end = worker.receive("ended", "stopped")
    assert (end["state"], end["message"]) == ("killed", "the job was stopped before it began")
    worker.send({"type": "cancel", "task": "runs"})
    assert worker.receive("ended", "runs")["state"] == "killed"
    assert worker.receive("ended", "waits")["state"] == "finished"
    assert [worker.printed(task) for task in ("runs", "waits", "stopped")] == [f"{thread}\n", f"{thread}\n", ""]
    assert worker.end_of("later", **job)["state"] == "finished", "an interruption does not stay in the thread"


def test_shard_that_waits_for_ended_threads_fails(begin: Begin, odd_classes: Path) -> None:
    worker = begin(odd_classes)
    pool: dict[str, Any] = {"executorService": "odd.Odd$OneThread"}
    worker.run("ends", jobClass="odd.Odd$EndsThreads", **pool)
    wait_until(lambda: worker.printed("ends"), "the first shard runs")
    worker.run("waits", jobClass="odd.Odd$Threaded", **pool)
    end = worker.receive("ended", "waits")
    assert (end["state"], end["cause"]) == ("failed", "import")
    assert "the executor service of the job was shut down" in end["message"]


def test_log_of_a_shard_is_closed_if_its_executor_service_has_no_thread(begin: Begin, odd_classes: Path) -> None:
    worker = begin(odd_classes)
    end = worker.end_of("t1", jobClass="odd.Odd$Threaded", executorService="odd.Odd$SameThread")
    assert (end["state"], worker.printed("t1")) == ("finished", "t1\n")
    descriptors = Path(f"/proc/{worker.process.pid}/fd")
    opened = [os.readlink(one) for one in descriptors.iterdir() if one.is_symlink()]
    assert not [name for name in opened if "/tasks/" in name]


def test_output_of_odd_jobs_stays_in_their_logs(begin: Begin, odd_classes: Path) -> None:
    worker = begin(odd_classes)
    assert worker.end_of("closes", jobClass="odd.Odd$Closes")["state"] == "finished"
    assert worker.end_of("text", jobClass="odd.Odd$NonAscii", parameter="Zürich 東京 𝔘")["state"] == "finished"
    assert worker.printed("text") == "结算 é 😀 Zürich 東京 𝔘\n"
    assert worker.end_of("thread", jobClass="odd.Odd$StartsThread", parameter="go")["state"] == "finished"
    (worker.sandbox / "app" / "go").touch()
    wait_until(lambda: "a thread after its shard" in worker.log(), "the thread prints")
    assert worker.printed("thread") == "a thread of the shard\n"


def test_parameters_and_output_do_not_depend_on_the_locale(begin: Begin, odd_classes: Path) -> None:
    worker = begin(odd_classes, "-Dfile.encoding=US-ASCII", "-Dsun.jnu.encoding=ANSI_X3.4-1968")
    assert worker.end_of("text", jobClass="odd.Odd$NonAscii", parameter="Zürich")["state"] == "finished"
    assert worker.printed("text") == "结算 é 😀 Zürich\n"


def test_context_that_takes_long_blocks_neither_others_nor_a_kill(begin: Begin, odd_classes: Path) -> None:
    worker = begin(odd_classes)
    slow = {"applicationContext": "odd.Odd$Slow", "beanName": "counts"}
    worker.run("builds", "run", 1, False, **slow)
    wait_until(lambda: worker.printed("builds"), "the context is being built")
    worker.run("waits", "run", 1, False, **slow)
    assert worker.end_of("other", applicationContext="odd.Odd$Quick", beanName="counts")["state"] == "finished"
    worker.send({"type": "cancel", "task": "waits"})
    assert worker.receive("ended", "waits")["state"] == "killed"
    (worker.sandbox / "app" / "open").touch()
    assert worker.receive("ended", "builds")["state"] == "finished"
    assert worker.printed("waits") == ""


def test_exit_in_a_job_ends_the_worker_with_its_code(begin: Begin, odd_classes: Path) -> None:
    worker = begin(odd_classes)
    worker.run("t1", jobClass="odd.Odd$Exits")
    assert worker.process.wait(60) == 3
