"""A company's jobs on real servers while everything around them is killed: `python -m tests.soak --help`.

Three schedulers, three ZooKeeper servers, a Mesos with ten agents, 200 DAEMON jobs of 10 shards and 100 TRANSIENT jobs
of 20 shards that run 50 s of each minute. The jobs write every start and end to files; `checker` compares those files
with what was due, by its own reading of cron and nothing of jobcloud's.
"""
