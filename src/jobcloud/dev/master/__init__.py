"""A Mesos master as a pure state machine. It opens no socket, starts no thread and reads no clock.

`Master.handle` takes one input and returns effects in order. `Master.next_at` tells when the next Tick is due. Each of
these modules imports only modules above it:

    records         the records of frameworks, agents, executors, tasks, offers and drains
    validation      checks of frameworks, offer lists and tasks
    allocator       which framework is offered which resources
    events          events and task statuses from the master
    state           tables, timers, effects, and the changes that keep resource amounts consistent
    views           JSON: /state, read-only operator calls, offers
    monitoring      JSON: /tasks, /frameworks, /state-summary, /roles, /flags, /metrics/snapshot
    offers          offers made, and rescinded after a timeout
    inverse_offers  maintenance announced to frameworks
    frameworks      subscription, fail-over, removal
    agents          registration, loss, return, forwarded updates
    launches        ACCEPT
    calls           the other calls of schedulers
    operators       calls of operators
    core            `Master`: dispatch

Operations other than LAUNCH, dynamic reservations, quota and weights are refused with an error. There is no
authentication. Source: src/master/{master,http}.cpp of Mesos 1.11.0, and the files that single modules name. The
contract suite compares this package with a real Mesos.
"""

from __future__ import annotations

from .core import Master, MasterInput
from .state import MasterSettings

__all__ = ["Master", "MasterInput", "MasterSettings"]
