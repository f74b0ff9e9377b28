"""A long test with real servers, which are killed while jobs run: `python -m tests.soak --help`.

Three schedulers, three ZooKeeper servers, a Mesos with ten agents, 200 DAEMON jobs of 10 shards, and 100 TRANSIENT jobs
of 20 shards that run 50 s of each minute. The jobs record every start and end in files. `checker` compares those files
with the due shards. It evaluates cron itself and imports no code of jobcloud.
"""
