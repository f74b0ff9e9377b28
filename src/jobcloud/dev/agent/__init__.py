"""A Mesos agent as a pure state machine. It opens no socket, starts no process and reads no clock.

It starts and kills executors by effects (`StartExecutor`, `KillExecutor`). Inputs (`ExecutorStarted`, `ExecutorEnded`)
tell when an executor has started or ended. Each of these modules imports only modules above it:

    records     executors and launched tasks
    updates     status updates, sent again until acknowledged
    state       tables, timers, effects
    validation  checks of executor calls
    executors   processes, API calls, launch and kill of tasks
    core        `Agent`: dispatch, registration, messages of the master

Source: src/slave/{slave,http,task_status_update_manager}.cpp of Mesos 1.11.0. The contract suite compares
this package with a real Mesos.
"""

from __future__ import annotations

from .core import Agent, AgentInput
from .state import AgentSettings

__all__ = ["Agent", "AgentInput", "AgentSettings"]
