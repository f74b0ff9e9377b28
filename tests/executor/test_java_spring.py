"""Spring's contexts in the worker for Java, with the Spring 4.3 of Debian."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.executor_kit import FakeAgent, Start, app_payload, needs_jdk, needs_spring, wait_until
from tests.executor_kit.workers import WorkerProcess, compile_java

from jobcloud.client.pack import pack

pytest_plugins = ["tests.executor_kit.fixtures"]
pytestmark = [needs_jdk, needs_spring]

EXAMPLE = Path(__file__).parents[2] / "examples" / "java-spring"
CONTEXT = "classpath:META-INF/applicationContext.xml"
BEANS = """<?xml version="1.0" encoding="UTF-8"?>
<beans xmlns="http://www.springframework.org/schema/beans" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
  xsi:schemaLocation="http://www.springframework.org/schema/beans http://www.springframework.org/schema/beans/spring-beans.xsd">
  %s
</beans>
"""
PROBE = """
package probe;
import com.dangdang.ddframe.job.api.ShardingContext;
import com.dangdang.ddframe.job.api.simple.SimpleJob;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Function;
public class Probe {
    static final AtomicInteger MADE = new AtomicInteger();
    /** Returns how many beans of its class were made, and its own runs. Measures the heap in KiB if it is asked to. */
    public static class Counting implements Function<ShardingContext, Object> {
        private final int made = MADE.incrementAndGet();
        private final AtomicInteger runs = new AtomicInteger();
        public Object apply(ShardingContext context) {
            String found = made + " " + runs.incrementAndGet();
            if (!context.getShardingParameter().equals("measure")) { return found; }
            for (int i = 0; i < 3; i++) { System.gc(); }
            Runtime java = Runtime.getRuntime();
            return found + " " + (java.totalMemory() - java.freeMemory()) / 1024 + " " + Thread.activeCount();
        }
    }
    public static class Named implements SimpleJob {
        private String text;
        public void setText(String text) { this.text = text; }
        public void execute(ShardingContext context) { System.out.println(text); }
    }
    public static class Fails implements SimpleJob {
        public Fails() { throw new IllegalStateException("no database"); }
        public void execute(ShardingContext context) { }
    }
    /** Writes to both streams of the process, past System.out, while the context is built. */
    public static class Noisy extends Named {
        public Noisy() throws java.io.IOException {
            new java.io.FileOutputStream(java.io.FileDescriptor.out).write("{\\"type\\":\\"noise\\"}\\n".getBytes());
            java.util.logging.Logger.getLogger("noise").warning("noise of a logger");
            System.out.println("noise of the context");
        }
    }
}
"""


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, and a few classes and contexts of these tests."""
    out = tmp_path_factory.mktemp("java-bank")
    subprocess.run(["sh", str(EXAMPLE / "build.sh"), str(out)], check=True)
    source = tmp_path_factory.mktemp("probe") / "Probe.java"
    source.write_text(PROBE)
    compile_java(out, [source], out / "worker.jar")
    contexts = {
        "counting": '<bean id="counting" class="probe.Probe$Counting"/>',
        "other": '<bean id="counting" class="probe.Probe.Counting"/>',
        "names": '<bean id="结算" class="probe.Probe$Named"><property name="text" value="Zürich 東京"/></bean>'
        '<bean id="list" class="java.util.ArrayList"/>'
        '<bean id="lazy" class="probe.Probe$Fails" lazy-init="true"/>',
        "fails": '<bean id="job" class="probe.Probe$Fails"/>',
        "noisy": '<bean id="job" class="probe.Probe$Noisy"><property name="text" value="done"/></bean>',
        "malformed": "<bean",
        "missing-class": '<bean id="job" class="no.such.Job"/>',
    }
    for name, text in contexts.items():
        (out / f"{name}.xml").write_text(BEANS % text, encoding="utf-8")
    return out


@pytest.fixture
def worker(bank: Path, tmp_path: Path) -> Iterator[WorkerProcess]:
    os.symlink(bank, tmp_path / "app")
    worker = WorkerProcess(["java", "-XX:TieredStopAtLevel=1", "-jar", "worker.jar"], tmp_path)
    yield worker
    worker.close()


def test_example_runs_as_written_for_elastic_job(
    agent: FakeAgent, start: Start, bank: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    archive = tmp_path_factory.mktemp("package") / "package.zip"
    pack(bank, archive)
    package = archive.read_bytes()
    agent.executor_data = app_payload(package, workerCommand="java -XX:TieredStopAtLevel=1 -jar worker.jar")
    executor = start(package)
    for number, city in enumerate(("Berlin", "Paris"), 1):
        agent.launch(city, item=1, parameter=city, applicationContext=CONTEXT, beanName="interestJob")
        assert agent.end(city).state == "TASK_FINISHED", agent.end(city)
        assert executor.output(city) == f"accounts 1, use {number}: interest of {city}\n"
    job: dict[str, Any] = {"jobType": "DATAFLOW", "streamingProcess": True}
    agent.launch("statements", applicationContext=CONTEXT, beanName="statementJob", **job)
    assert agent.end("statements").state == "TASK_FINISHED", agent.end("statements")
    printed = "accounts 1, use 3: [statement 2]\naccounts 1, use 4: [statement 1]\n"
    assert executor.output("statements") == printed
    executor.stop()
    assert "the accounts are closed" in (executor.sandbox / "worker" / "stderr").read_text()


def test_context_is_built_once_for_1000_runs_and_the_heap_does_not_grow(worker: WorkerProcess) -> None:
    job: dict[str, Any] = {"applicationContext": "classpath:counting.xml", "beanName": "counting"}

    def run(number: int, parameter: str = "") -> list[int]:
        end = worker.end_of(f"t{number}", parameter=parameter, **job)
        assert end["state"] == "finished", end
        made, runs, *measured = map(int, end["result"].split())
        assert (made, runs) == (1, number)
        return measured

    for number in range(1, 200):
        run(number)
    heap, threads = run(200, "measure")
    for number in range(201, 1_000):
        run(number)
    later_heap, later_threads = run(1_000, "measure")
    # A class loader with Spring, kept for each run, would take megabytes; the log of each shard 0.1 KiB.
    assert later_heap < heap + 2_048
    assert later_threads <= threads


def test_two_contexts_of_an_app_have_their_own_beans_and_share_static_state(worker: WorkerProcess) -> None:
    results = [
        worker.end_of(f"t{number}", applicationContext=f"classpath:{name}.xml", beanName="counting")["result"]
        for number, name in enumerate(("counting", "other", "counting"))
    ]
    assert results == ["1 1", "2 1", "1 2"]


def test_names_and_values_need_not_be_ascii(worker: WorkerProcess) -> None:
    assert worker.end_of("t1", applicationContext="names.xml", beanName="结算")["state"] == "finished"
    assert worker.printed("t1") == "Zürich 東京\n"


@pytest.mark.parametrize(
    ("context", "bean", "cause", "says"),
    [
        ("classpath:fails.xml", "job", "context", "no database"),
        ("classpath:malformed.xml", "job", "context", "SAXParseException"),
        ("classpath:missing-class.xml", "job", "context", "no.such.Job"),
        ("classpath:absent.xml", "job", "context", "absent.xml"),
        ("classpath:names.xml", "job", "context", "has no bean job, only: lazy, list, 结算"),
        ("classpath:names.xml", "lazy", "context", "no database"),
        ("classpath:names.xml", "list", "import", "beanName list is a java.util.ArrayList, must be a SimpleJob"),
    ],
)
def test_context_that_cannot_give_the_bean_fails_the_run_with_the_reason(
    worker: WorkerProcess, context: str, bean: str, cause: str, says: str
) -> None:
    for number in (1, 2):
        end = worker.end_of(f"t{number}", applicationContext=context, beanName=bean)
        assert (end["state"], end["cause"]) == ("failed", cause)
        assert says in end["message"], end
    assert worker.end_of("t3", applicationContext="counting.xml", beanName="counting")["state"] == "finished"


def test_noise_of_a_context_is_not_in_the_protocol(worker: WorkerProcess) -> None:
    end = worker.end_of("t1", applicationContext="noisy.xml", beanName="job")
    assert end["state"] == "finished"
    assert worker.printed("t1") == "noise of the context\ndone\n"
    assert "noise of a logger" in worker.printed("t1", "stderr")
    assert '{"type":"noise"}\n' in worker.log()


def test_context_is_built_in_advance_and_its_noise_is_not_of_a_shard(worker: WorkerProcess) -> None:
    worker.send({"type": "warm", "contexts": ["classpath:fails.xml", "noisy.xml"]})
    wait_until(lambda: "noise of the context" in worker.log(), "the context is built")
    assert worker.end_of("t1", applicationContext="noisy.xml", beanName="job")["state"] == "finished"
    assert worker.printed("t1") == "done\n"


def test_annotations_without_their_jar_have_no_effect(bank: Path, tmp_path: Path) -> None:
    """The fact behind the note at registration (tests/server/test_java_packages.py)."""
    app = tmp_path / "app"
    (app / "lib").mkdir(parents=True)
    for jar in (bank / "lib").iterdir():
        if "annotation" not in jar.name:
            os.symlink(jar, app / "lib" / jar.name)
    worker = WorkerProcess(["java", "-XX:TieredStopAtLevel=1", "-jar", str(bank / "worker.jar")], tmp_path)
    end = worker.end_of("t1", applicationContext=CONTEXT, beanName="interestJob")
    worker.close()
    assert (end["state"], end["cause"]) == ("failed", "exception")
    assert "NullPointerException" in end["message"]
