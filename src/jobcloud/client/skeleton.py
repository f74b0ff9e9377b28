"""The small working app that `jobcloud app init` writes: a job, its test and its manifest."""

from __future__ import annotations

import re
from pathlib import Path
from string import Template

from jobcloud.client.pack import MANIFEST
from jobcloud.config import check_name
from jobcloud.errors import ConfigError

_JOBS = Template('''"""The jobs of the app $app."""

from __future__ import annotations

from jobcloud.job import ShardingContext, SimpleJob


class Hello(SimpleJob):
    """Greets the city in the parameter of its shard."""

    def execute(self, ctx: ShardingContext) -> dict[str, str]:
        greeting = f"Hello, {ctx.sharding_parameter or 'world'}"
        ctx.logger.info("shard %d of %d: %s", ctx.sharding_item, ctx.sharding_total_count, greeting)
        return {"greeting": greeting}
''')
_TEST = Template("""from jobcloud.job import ShardingContext, perform

from $module import Hello


def test_shard_greets_its_city() -> None:
    ctx = ShardingContext("hello", sharding_total_count=2, sharding_item=1, sharding_parameter="Paris")
    assert perform(Hello(), ctx) == {"greeting": "Hello, Paris"}
""")
_MANIFEST = Template("""# Try it:        jobcloud run-local . hello
# Register it:   jobcloud app add .

[app]
appName = "$app"
cpuCount = 0.1
memoryMB = 64

[[jobs]]
jobName = "hello"
jobType = "SIMPLE"
jobClass = "$module:Hello"
jobExecutionType = "TRANSIENT"
cron = "0/30 * * * * ?"
shardingTotalCount = 2
shardingItemParameters = "0=Berlin,1=Paris"
cpuCount = 0.1
memoryMB = 32
""")


def init_app(directory: Path) -> list[Path]:
    """Write the app into a new or empty directory. The app gets the name of the directory. Returns the files.

    Raises ConfigError, and writes nothing, if the name is invalid or the directory is not empty.
    """
    name = directory.resolve().name
    check_name("DIR", name)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ConfigError(f"{directory} exists and is not empty", field="DIR", fix="give a new directory")
    module = re.sub(r"\W|^(?=\d)", "_", name).lower() + "_jobs"
    files = {f"{module}.py": _JOBS, f"test_{module}.py": _TEST, MANIFEST: _MANIFEST}
    directory.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        (directory / file).write_text(content.substitute(app=name, module=module))
    return [directory / file for file in files]
