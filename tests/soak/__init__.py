"""A long test with real servers, which are killed while jobs run: `python -m tests.soak --help`.

Three schedulers, three ZooKeeper servers, a Mesos with ten agents, 200 DAEMON jobs of 10 shards, and 100 TRANSIENT jobs
of 20 shards that run 50 s of each minute. Beside them, 5,000 shards of one job fail at once each minute, with messages
of 4,000 characters, and one job fires every second. The jobs record every start and end in files. `checker` compares
those files with the due shards. It evaluates cron itself and imports no code of jobcloud.

Leaders are killed, frozen, stopped, and cut off from the network: one scheduler runs in a network namespace, whose link
is cut while it leads. ZooKeeper and Mesos are killed, and an agent is marked as gone.
"""
