import asyncio
import json
import os
import sys
import threading
import time

from jobcloud.job import DataflowJob, ErrorHandler, FiringListener, JobListener, SimpleJob


class Settle(SimpleJob):
    def execute(self, ctx):
        print("settling", ctx.sharding_item, ctx.sharding_parameter)
        print("to stderr", file=sys.stderr)
        ctx.logger.info("logged %s", ctx.run_id)
        return {
            "item": ctx.sharding_item,
            "run": ctx.run_id,
            "attempt": ctx.attempt,
            "fence": ctx.fence,
            "fire": ctx.fire_time_ms,
            "pid": os.getpid(),
            "cwd": os.getcwd(),
        }


class Raises(SimpleJob):
    def execute(self, ctx):
        raise ValueError("no stock")


def plain(ctx):
    return ctx.job_parameter


def wait_for_kill(ctx):
    print("waiting")
    while not ctx.cancelled:
        time.sleep(0.01)


def never_returns(ctx):
    while True:
        time.sleep(0.01)


def dies(ctx):
    os._exit(9)


def dies_when_killed(ctx):
    wait_for_kill(ctx)
    os._exit(9)


class NotAJob:
    pass


class Unmakeable(SimpleJob):
    def __init__(self):
        raise RuntimeError("no connection")

    def execute(self, ctx):
        pass


def exits(ctx):
    sys.exit(int(ctx.sharding_item))


def exits_like_a_script(ctx):
    exit()


def exits_with_a_number(ctx):
    sys.exit(int(ctx.sharding_parameter))


def reads_input(ctx):
    print(repr(sys.stdin.read()), repr(sys.stdin.readline()), sys.stdin.buffer.read())


def works_on(ctx):
    return "done"


def prints_much(ctx):
    for _ in range(300):
        print("x" * 100_000)


def closes_output(ctx):
    sys.stdout.close()
    sys.stderr.close()
    os.chdir("/")
    print("still here")


def talks_nonsense(ctx):
    os.write(int(sys.argv[-1]), b"nonsense\n")
    time.sleep(60)


def answers_twice(ctx):
    end = {"type": "ended", "task": ctx.task_id, "run": 1, "state": "finished"}
    line = json.dumps({**end, "cause": None, "message": "", "exitCode": None, "result": 1}).encode() + b"\n"
    os.write(int(sys.argv[-1]), line + line)
    time.sleep(60)


def segfaults(ctx):
    import ctypes

    ctypes.string_at(0)


def big_result(ctx):
    return "y" * 10_000_000


def odd_result(ctx):
    return {1, 2}


def not_utf8(ctx):
    sys.stdout.buffer.write(b"\xff\xfe")
    raise ValueError("\udcff \x00")


def huge_error(ctx):
    raise ValueError("z" * 1_000_000)


def environment(ctx):
    return sorted(name for name in os.environ if name.startswith("MESOS_EXECUTOR_AUTH"))


def variables(ctx):
    return {name: os.environ[name] for name in ("REGION", "LEVEL", "OPTIONS") if name in os.environ}


def prints_variables(ctx):
    print(json.dumps(variables(ctx)))


def files_in(folder):
    found = {}
    for parent, folders, names in os.walk(folder):
        for name in folders + names:
            path = os.path.join(parent, name)
            with open(path) if name in names else open(os.devnull) as file:
                found[os.path.relpath(path, folder)] = [oct(os.stat(path).st_mode & 0o777), file.read()]
    return found


def reads_files(ctx):
    print(
        json.dumps(
            {
                "folder": ctx.files,
                "variable": os.environ.get("JOBCLOUD_FILES"),
                "mode": oct(os.stat(ctx.files).st_mode & 0o777),
                "files": files_in(ctx.files),
            }
        ),
        flush=True,
    )


def reads_files_until_killed(ctx):
    reads_files(ctx)
    wait_for_kill(ctx)


class ReadsFiles(FiringListener):
    def before_firing(self, ctx):
        reads_files(ctx)


class PrintsVariables(FiringListener):
    def before_firing(self, ctx):
        prints_variables(ctx)


def parameters(ctx):
    return [ctx.job_parameter, ctx.sharding_parameter]


def prints_parameter(ctx):
    print(ctx.job_parameter, flush=True)


class Prints(FiringListener):
    def before_firing(self, ctx):
        print(json.dumps([ctx.job_parameter, ctx.sharding_parameters]))


def forks(ctx):
    pid = os.fork()
    if pid == 0:
        sys.exit(0)
    os.waitpid(pid, 0)
    return "parent"


def leaves_children(ctx):
    import subprocess

    subprocess.Popen(["sleep", ctx.sharding_parameter], start_new_session=ctx.sharding_parameter == "600")
    while not ctx.cancelled:
        time.sleep(0.01)


class Bean(SimpleJob):
    def __init__(self, built):
        self.built = built
        self.runs = 0

    def execute(self, ctx):
        self.runs += 1
        return [self.built, self.runs]


built = 0


def context():
    global built
    built += 1
    return {"settle": Bean(built)}


class Pool:
    def __enter__(self):
        open("opened", "w").close()
        return {"settle": Bean(0)}

    def __exit__(self, *_):
        open("closed", "w").close()


def broken_context():
    raise RuntimeError("no database")


class Flow(DataflowJob):
    def __init__(self):
        self.left = [[1, 2], [3], []]
        self.seen = []

    def fetch_data(self, ctx):
        return self.left.pop(0)

    def process_data(self, ctx, data):
        print(data)


class Endless(DataflowJob):
    def fetch_data(self, ctx):
        return [1]

    def process_data(self, ctx, data):
        time.sleep(0.01)
        print("round")


class Counts(SimpleJob):
    def __init__(self):
        self.runs = 0

    def execute(self, ctx):
        self.runs += 1
        print(self.runs, ctx.run_id)
        if self.runs == 2:
            raise ValueError("the second fails")


async def asynchronous(ctx):
    print("before")
    await asyncio.sleep(0)
    print("after")
    if ctx.sharding_parameter:
        sys.exit(int(ctx.sharding_parameter))
    return threading.get_ident()


async def waits_asynchronously(ctx):
    print("waiting")
    await asyncio.sleep(600)


class AsynchronousFlow(DataflowJob):
    def __init__(self):
        self.left = [[1, 2], [3], []]

    async def fetch_data(self, ctx):
        return self.left.pop(0)

    async def process_data(self, ctx, data):
        await asyncio.sleep(0)
        print(data)


def progresses(ctx):
    for done in range(1, 1000):
        ctx.progress(done, 1000)
    while not ctx.cancelled:
        ctx.progress(1000)
        time.sleep(0.01)


def wrong_progress(ctx):
    ctx.progress(-1)


def until_file(ctx):
    while not os.path.exists(ctx.sharding_parameter):
        time.sleep(0.01)


def takes_memory(ctx):
    return len(bytearray(int(ctx.sharding_parameter) << 20))


def burns_cpu(ctx):
    while True:
        pass


def opens_files(ctx):
    files = []
    while True:
        files.append(os.open(os.devnull, os.O_RDONLY))


def child_prints(ctx):
    import subprocess

    subprocess.run(["echo", "from a child"], check=True)
    print("from the job")


def ends_well(ctx):
    os._exit(0)


def changes_process(ctx):
    os.chdir("/")
    os.environ["CHANGED"] = "1"
    sys.modules["changed"] = "changed"
    return os.getpid()


def sees_process(ctx):
    return [os.getcwd(), os.environ.get("CHANGED"), sys.modules.get("changed"), os.getpid()]


def polite(ctx):
    wait_for_kill(ctx)
    print("bye")


def beats(ctx):
    while not ctx.cancelled:
        with open(ctx.sharding_parameter, "a") as file:
            file.write(".")
        time.sleep(0.01)


def killed(ctx):
    os.kill(os.getpid(), 9)


def prints_with_child(ctx):
    import subprocess

    subprocess.run(["echo", "from a child"], check=True)
    print("from", ctx.task_id)


class BadFarewell(SimpleJob):
    def execute(self, ctx):
        return "done"

    def __del__(self):
        raise RuntimeError("in __del__")


def masks_signals(ctx):
    import signal

    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, signal.NSIG))
    while True:
        time.sleep(0.01)


def deadlocks(ctx):
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def forks_much(ctx):
    for _ in range(60):
        if os.fork() == 0:
            os.setsid()
            time.sleep(600)
            os._exit(0)
    while not ctx.cancelled:
        time.sleep(0.01)


class Audits(JobListener):
    def __init__(self):
        self.heard = []

    def before_job_executed(self, ctx):
        print("before", ctx.sharding_item, len(self.heard))

    async def after_job_executed(self, ctx, error):
        self.heard.append(error)
        print("after", type(error).__name__, len(self.heard))


class Refuses(JobListener):
    def before_job_executed(self, ctx):
        raise PermissionError("not today")


class Spoils(JobListener):
    def after_job_executed(self, ctx, error):
        raise OSError("no room for the audit")


class Hangs(JobListener):
    def __init__(self):
        time.sleep(600)


class Stage(FiringListener):
    def before_firing(self, ctx):
        if ctx.job_parameter == "refuse":
            raise PermissionError("not today")
        print("opening", ctx.sharding_total_count, ctx.sharding_parameters, ctx.run_id, ctx.fence)

    async def after_firing(self, ctx):
        print("closing", ctx.outcomes, ctx.succeeded)


class Deals(ErrorHandler):
    def handle(self, ctx, error):
        if ctx.sharding_parameter == "raise":
            raise OSError("nobody to tell")
        print("handling", type(error).__name__)
        return ctx.sharding_parameter == "deal"


class Slow(FiringListener):
    def after_firing(self, ctx):
        while not ctx.cancelled:
            time.sleep(0.01)


def floods(ctx):
    line = "x" * 99_999 + "\n"
    left = int(ctx.sharding_parameter)
    while left > 0:
        sys.stdout.write(line[-left:])
        left -= len(line)


def closes_descriptors(ctx):
    os.close(1)
    os.close(2)
    print("still here")


def fills_disk(ctx):
    with open("data", "wb") as file:
        file.write(bytes(4 << 20))


def fills_memory(ctx):
    return len(b"x" * (int(ctx.sharding_parameter) << 20))


def wants_memory(ctx):
    return bytearray(1 << 62)


class Warmed(dict):
    def __init__(self):
        with open("built", "a") as file:
            file.write("x")
        super().__init__(works_on=works_on)


def exits_with_3(ctx):
    sys.exit(3)


def exits_oddly(ctx):
    sys.exit("1" * 5_000)


def closes_streams(ctx):
    sys.stdout.close()
    sys.stderr.close()
    os.write(1, b"still here")


def replaces_streams(ctx):
    with open(os.devnull, "w") as sys.stdout, open(os.devnull, "w") as sys.stderr:
        print("to nobody")


def yields(ctx):
    yield ctx


def giant_result(ctx):
    return ["y" * (1 << 20)] * 1024


class Fickle(dict):
    """A mapping that changes with each access."""

    looks = 0

    def items(self):
        self.looks += 1
        return {"looks": self.looks, "more": "x" * 2_000_000 * (self.looks > 1)}.items()


def fickle_result(ctx):
    return Fickle(one=1)


def deep_result(ctx):
    value = []
    for _ in range(100):
        value = [value]
    return value


class UnspeakableError(Exception):
    def __str__(self):
        raise SystemExit("never")

    __repr__ = __str__


def unspeakable(ctx):
    raise UnspeakableError


def closes_everything(ctx):
    os.closerange(0, 1024)
    time.sleep(600)


def forks_wildly(ctx):
    """Every process forks six times: 63 descendants, each in its own session."""
    first = os.getpid()
    for _ in range(6):
        if os.fork() == 0:
            os.setsid()
    if os.getpid() != first:
        time.sleep(600)
        os._exit(0)
    while not ctx.cancelled:
        time.sleep(0.01)


def fills_up(ctx):
    with open(ctx.job_parameter, "wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))


def ports(ctx):
    return list(ctx.ports)
