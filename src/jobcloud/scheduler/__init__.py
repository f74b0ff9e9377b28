"""The scheduler's decisions, without side effects: events in, effects out.

The modules, by stage:

| stage | modules |
| --- | --- |
| state | `state` tables, write set, effects · `part` hooks · `core` dispatch |
| start | `recovery` repairs stored records · `restorations` after `jobcloud restore` |
| 1 due → waiting shards | `timetable` · `sharding` · `firings` · `queue` |
| 2 offers → launches | `cycle` · `cluster` · `launch` |
| 3 updates → next attempt | `tasks` · `status` · `retry` · `reconciliation` · `timeouts` |
| 4 executors | `executors` · `warm_executors` · `circuit_breakers` |
| 5 operators | `commands` · `app_versions` · `backfills` · `drains` · `rollouts` · `revisions` |
| reading | `explain` · `reason` · `attempts` · `traces` · `invariants` |

Hot paths use module constants such as `_ACTIVE` for enumeration members, because each access to a member costs a
function call in CPython 3.11.
"""

from jobcloud.scheduler.core import Policy, Scheduler, Stored

__all__ = ["Policy", "Scheduler", "Stored"]
