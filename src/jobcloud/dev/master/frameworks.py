"""Frameworks: subscription, fail-over, update, removal."""

from __future__ import annotations

from ..protocol import Close, FrameworkUpdated, Json, Reply, Send, ShutdownFramework, StreamLost, Subscribed
from . import events
from .inverse_offers import InverseOffers
from .records import FrameworkRecord
from .state import State
from .validation import bad_failover_timeout, bad_framework, changed_immutable_field
from .views import Views

_MAX_REMOVED_FRAMEWORKS = 50  # --max_completed_frameworks of a Mesos master


class Frameworks:
    def __init__(self, state: State, views: Views, inverse_offers: InverseOffers) -> None:
        self._state = state
        self._views = views
        self._inverse_offers = inverse_offers

    # ---- subscription ----------------------------------------------------------------------------------------

    def subscribe(self, subscribe: Json) -> None:
        state = self._state
        stream_id = f"{state.settings.master_id}-{state.started_at:x}-{state.next_number('stream')}"
        state.effects.append(Subscribed(stream_id))
        info = _with_defaults(subscribe["framework_info"])
        suppressed = subscribe.get("suppressed_roles") or []
        given_id = (info.get("id") or {}).get("value", "")
        error = bad_framework(info, suppressed)
        if not error and given_id in state.removed_frameworks:
            error = "Framework has been removed"
        framework = state.frameworks.get(given_id)
        error = error or bad_failover_timeout(info) or _changed_principal(framework, info)
        if error:
            state.effects += [Send(stream_id, events.error(error)), Close(stream_id)]
            return
        if framework is None:
            framework = self._add(info, given_id)
        else:
            # Mesos silently keeps the old values of the two fields that a framework cannot change (MESOS-703).
            info["user"] = framework.info["user"]
            info["checkpoint"] = framework.info.get("checkpoint", False)
        self._connect(framework, info, stream_id, suppressed)

    def _add(self, info: Json, given_id: str) -> FrameworkRecord:
        state = self._state
        framework_id = given_id or f"{state.settings.master_id}-{state.next_number('framework'):04d}"
        info["id"] = {"value": framework_id}
        framework = state.frameworks[framework_id] = FrameworkRecord(info, state.now)
        return framework

    def _connect(self, framework: FrameworkRecord, info: Json, stream_id: str, suppressed: list[str]) -> None:
        state = self._state
        known_to_agents = framework.reregistered_at or framework.recovered
        if framework.connected:
            error = events.error("Framework failed over")
            state.effects += [Send(framework.stream_id, error), Close(framework.stream_id)]
            del state.streams[framework.stream_id]
        self._release_offers(framework)
        framework.info, framework.stream_id, framework.recovered = info, stream_id, False
        framework.reregistered_at, framework.fails_over_at = state.now, None
        state.streams[stream_id] = framework.id
        state.allocator.add_client(framework.id, framework.roles, suppressed, framework.can("GPU_RESOURCES"))
        state.allocation_wanted = True
        state.send_event(framework, self._subscribed(framework))
        self._send_heartbeat(stream_id)
        if known_to_agents:
            state.send_to_agents(FrameworkUpdated(info))

    def _subscribed(self, framework: FrameworkRecord) -> Json:
        return {
            "type": "SUBSCRIBED",
            "subscribed": {
                "framework_id": framework.info["id"],
                "heartbeat_interval_seconds": self._state.settings.heartbeat_ms / 1000,
                "master_info": self._views.master_info(),
            },
        }

    def _send_heartbeat(self, stream_id: str) -> None:
        state = self._state
        if stream_id in state.streams:
            state.effects.append(Send(stream_id, {"type": "HEARTBEAT"}))
            state.call_at(state.now + state.settings.heartbeat_ms, self._send_heartbeat, stream_id)

    def update(self, framework: FrameworkRecord, update: Json) -> None:
        """Handle UPDATE_FRAMEWORK, the only call whose answer (200 or 400) tells whether the call succeeded."""
        state = self._state
        info = _with_defaults(update["framework_info"])
        suppressed = update.get("suppressed_roles") or []
        error = bad_framework(info, suppressed) or bad_failover_timeout(info)
        error = error or _changed_principal(framework, info) or changed_immutable_field(framework.info, info)
        if error:
            state.effects.append(Reply(400, f"FrameworkInfo update is not valid: {error}"))
            return
        state.effects.append(Reply(200))
        framework.info = info
        state.allocator.add_client(framework.id, framework.roles, suppressed, framework.can("GPU_RESOURCES"))
        state.rescind_all(offer for offer in framework.offers.values() if offer.role not in framework.roles)
        state.allocation_wanted = True
        state.send_to_agents(FrameworkUpdated(info))

    # ---- disconnection and removal ---------------------------------------------------------------------------

    def on_stream_lost(self, event: StreamLost) -> None:
        state = self._state
        framework_id = state.streams.pop(event.stream_id, "")
        if not framework_id:
            return
        framework = state.frameworks[framework_id]
        framework.stream_id = ""
        self._release_offers(framework)
        state.allocator.deactivate_client(framework_id)
        framework.fails_over_at = state.now + int(framework.info.get("failover_timeout", 0) * 1000)
        state.call_at(framework.fails_over_at, self._failover_timed_out, framework_id)

    def _release_offers(self, framework: FrameworkRecord) -> None:
        """Remove a framework's offers without RESCIND: its scheduler is gone, or a new one has not seen the offers."""
        for offer in list(framework.offers.values()):
            self._state.remove_offer(offer)
        self._inverse_offers.forget_framework(framework)

    def _failover_timed_out(self, framework_id: str) -> None:
        state = self._state
        framework = state.frameworks.get(framework_id)
        # If the framework came back in the meantime, its deadline is later or None.
        if framework is not None and framework.fails_over_at is not None and framework.fails_over_at <= state.now:
            self.remove(framework)

    def remove(self, framework: FrameworkRecord) -> None:
        """End a framework's tasks without updates, shut down its executors, and refuse its id from now on."""
        state = self._state
        self._release_offers(framework)
        state.send_to_agents(ShutdownFramework(framework.id))
        text = f"Framework {framework.id} removed"
        for task in [*framework.tasks.values(), *framework.unreachable.values()]:
            status = events.task_status(task, "TASK_KILLED", text, "REASON_FRAMEWORK_REMOVED", state.now)
            state.apply_status(task, status)
            state.remove_task(framework, task)
        for agent in state.agents.values():
            for key in [key for key in agent.executors if key[0] == framework.id]:
                state.remove_executor(agent, key)
        if framework.connected:
            state.effects.append(Close(framework.stream_id))
            del state.streams[framework.stream_id]
            framework.stream_id = ""
        del state.frameworks[framework.id]
        if framework.id in state.allocator.clients:
            state.allocator.remove_client(framework.id)
        state.removed_frameworks[framework.id] = framework
        if len(state.removed_frameworks) > _MAX_REMOVED_FRAMEWORKS:
            del state.removed_frameworks[next(iter(state.removed_frameworks))]


def _with_defaults(framework_info: Json) -> Json:
    info: Json = {"failover_timeout": 0.0, "checkpoint": False}
    info.update({key: value for key, value in framework_info.items() if value is not None})
    return info


def _changed_principal(framework: FrameworkRecord | None, info: Json) -> str:
    if framework is not None and framework.info.get("principal") != info.get("principal"):
        return "Changing framework's principal is not allowed."
    return ""
