"""A Mesos master as a pure state machine. It opens no socket, starts no thread and reads no clock.

`Master.handle` takes one input and returns effects in order; `Master.next_at` tells when the next Tick is due. The
modules, each of which imports only those above it:

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

Unsupported features are refused with an error: operations other than LAUNCH, dynamic reservations, quota, weights,
authentication. Source of every behaviour: src/master/{master,http}.cpp of Mesos 1.11.0. The contract suite compares
this package with a real Mesos.
"""

from __future__ import annotations

from .core import Master, MasterInput
from .state import MasterSettings

__all__ = ["Master", "MasterInput", "MasterSettings"]
