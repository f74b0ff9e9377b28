"""The families of metrics: names, types, labels, help. docs/metrics.md has the same table.

Names follow the conventions of Prometheus: base units (seconds, bytes), `_total` for counters.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["counter", "gauge", "histogram"]
_JOB = ("team", "app", "job")


class Family(NamedTuple):
    """One family. `core`: its values come from the scheduler's state, so only a leader has them."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    core: bool = False


FAMILIES = (
    # the process
    Family("jobcloud_build_info", "gauge", "The version of jobcloud; always 1.", ("version",)),
    Family("jobcloud_leader", "gauge", "Whether this scheduler leads (1) or not (0)."),
    Family("jobcloud_leader_changes_total", "counter", "New leaders that this scheduler has noticed, itself included."),
    Family("jobcloud_epoch", "gauge", "The epoch of this scheduler; 0 before it leads."),
    Family("jobcloud_healthy", "gauge", "Whether GET /health answers 200 (1) or 503 (0)."),
    Family("jobcloud_connected", "gauge", "Whether the scheduler is subscribed to a Mesos master (1) or not (0)."),
    Family("jobcloud_recoveries_total", "counter", "How often the scheduler has started over from the stored state."),
    Family("jobcloud_warnings", "gauge", "Problems that do not stop the scheduler; GET /health names them."),
    Family("jobcloud_stored_faults", "gauge", "Stored records that cannot be read or written."),
    Family("jobcloud_faults_total", "counter", "Notices about faults, such as an error while a job was handled."),
    Family("jobcloud_core_answered", "gauge", "Whether the scheduler's thread answered this scrape (1) or not (0)."),
    Family("jobcloud_loop_lag_seconds", "gauge", "The delay of the last tick of the scheduler's thread."),
    Family("jobcloud_loop_idle_seconds", "gauge", "The time since the scheduler's thread was last active."),
    Family("jobcloud_inbox_items", "gauge", "Events, commands and questions that wait for the scheduler's thread."),
    Family("jobcloud_notices_dropped_total", "counter", "Notices that a receiver has missed.", ("reason",)),
    Family("jobcloud_spans_total", "counter", "Spans of OpenTelemetry that were sent, or dropped.", ("result",)),
    Family("jobcloud_http_requests_total", "counter", "Answers of the API.", ("method", "route", "status")),
    Family("jobcloud_packages", "gauge", "Stored packages of apps."),
    Family("jobcloud_packages_bytes", "gauge", "The size of all stored packages together."),
    Family(
        "jobcloud_tls_certificate_expiry_timestamp_seconds", "gauge",
        "When the certificate that a listener uses expires.", ("listener",),
    ),
    Family(
        "jobcloud_tls_reloads_total", "counter", "Changed certificates: taken over (ok), or not usable (failed).",
        ("listener", "result"),
    ),
    # clock and time zones
    Family("jobcloud_clock_offset_seconds", "gauge", "The clock of the machine minus the time of the scheduler."),
    Family("jobcloud_clock_jumps_total", "counter", "How often the clock of the machine was set or has jumped."),
    Family(
        "jobcloud_clock_difference_seconds", "gauge",
        "The clock of the machine minus that of another machine, when that was last heard.", ("machine",),
    ),
    Family("jobcloud_time_zones_info", "gauge", "The version of the time zone database; always 1.", ("version",)),
    Family("jobcloud_time_zones_outdated", "gauge", "Whether the machine has a newer time zone database (1)."),
    # the store
    Family("jobcloud_store_write_seconds", "histogram", "The duration of writes to the store, failed ones too."),
    Family("jobcloud_store_failures_total", "counter", "Failed calls of the store.", ("reason",)),
    # the archive of logs
    Family("jobcloud_archive_logs_total", "counter", "Logs of ended attempts, by what became of them.", ("outcome",)),
    Family("jobcloud_archive_copied_bytes_total", "counter", "Bytes of logs that were read from agents."),
    Family("jobcloud_archive_failures_total", "counter", "Failed calls of the archive."),
    Family("jobcloud_archive_away", "gauge", "Whether the last call of the archive failed (1)."),
    Family("jobcloud_archive_waiting", "gauge", "Logs that wait to be archived."),
    Family("jobcloud_archive_stored_logs", "gauge", "Logs in the archive."),
    Family("jobcloud_archive_stored_bytes", "gauge", "The size of all logs in the archive."),
    # the cluster
    Family(
        "jobcloud_agents", "gauge",
        "Known agents: up, closed (cordoned: it gets no new tasks), or lost (unreachable or gone).",
        ("state",), core=True,
    ),
    Family("jobcloud_drains", "gauge", "Agents that an operator drains.", core=True),
    Family("jobcloud_executors", "gauge", "Executors that are believed to live.", core=True),
    Family("jobcloud_offers_held", "gauge", "Offers that are held now.", core=True),
    Family("jobcloud_offers_received_total", "counter", "Offers that Mesos has made."),
    Family("jobcloud_offers_declined_total", "counter", "Offers that were declined."),
    # scheduling
    Family("jobcloud_apps", "gauge", "Registered apps.", core=True),
    Family("jobcloud_jobs", "gauge", "Registered jobs.", core=True),
    Family("jobcloud_runs_unfinished", "gauge", "Runs that have not ended.", core=True),
    Family("jobcloud_tasks", "gauge", "Tasks, without those of warm executors.", ("state",), core=True),
    Family(
        "jobcloud_queue_shards", "gauge",
        "Shards that wait: ready (for resources only), or blocked (for a retry, a listener, a run or a quota).",
        ("state",), core=True,
    ),
    Family("jobcloud_queue_oldest_age_seconds", "gauge", "How long the oldest ready shard has waited.", core=True),
    Family("jobcloud_jobs_refused", "gauge", "Jobs that lacked a resource in the last cycle.", ("reason",), core=True),
    Family("jobcloud_refusals_total", "counter", "How often a job began to lack a resource.", ("reason",)),
    Family("jobcloud_cycle_seconds", "histogram", "The duration of scheduling cycles."),
    Family("jobcloud_placements_total", "counter", "Tasks placed on agents, those of warm executors included."),
    Family(
        "jobcloud_launch_lateness_seconds", "histogram",
        "From the instant at which a run was due to the launch of the first attempt of each shard.",
    ),
    Family("jobcloud_attempts_lost_total", "counter", "Attempts that the cluster lost.", ("reason",)),
    # teams
    Family(
        "jobcloud_team_used", "gauge",
        "What a team uses or has: cpus, mem (MB), gpus, shards (attempts), queue (shards that wait), jobs.",
        ("team", "resource"), core=True,
    ),
    Family("jobcloud_team_quota", "gauge", "The limits of a team's quota.", ("team", "resource"), core=True),
    Family("jobcloud_team_held_runs", "gauge", "Runs whose shards wait for room in the quota.", ("team",), core=True),
    Family("jobcloud_team_share", "gauge", "A team's dominant share of the cluster, 0 to 1.", ("team",), core=True),
    # jobs
    Family("jobcloud_runs_started_total", "counter", "Runs that were due, or started again by an operator.", _JOB),
    Family("jobcloud_runs_ended_total", "counter", "Ended runs, by the state of their worst shard.", (*_JOB, "state")),
    Family("jobcloud_launches_total", "counter", "Launched attempts.", _JOB),
    Family("jobcloud_attempts_ended_total", "counter", "Ended attempts.", (*_JOB, "state")),
    Family("jobcloud_firings_skipped_total", "counter", "Skipped firings, over all leaders.", _JOB, core=True),
    Family(
        "jobcloud_job_last_success_timestamp_seconds", "gauge", "When a run last ended as FINISHED; 0: not known.", _JOB
    ),
    Family(
        "jobcloud_job_last_failure_timestamp_seconds", "gauge",
        "When a run last ended as FAILED or DEAD; 0: not known.", _JOB,
    ),
)  # fmt: skip
