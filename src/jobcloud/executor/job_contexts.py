"""The contexts that the code of jobs gets. The worker uses this module without the parsers of payload.py."""

from __future__ import annotations

from typing import Any, Mapping

from jobcloud.job import FiringContext, ShardingContext


def sharding_context(context: Mapping[str, Any], facts: Mapping[str, Any], **more: Any) -> ShardingContext:
    """The context of a shard, from `TaskPayload.context` and `TaskPayload.facts()`."""
    return ShardingContext.from_dict(
        context,
        run_id=facts["runId"],
        attempt=facts["attempt"],
        fence=facts["fence"],
        fire_time_ms=facts["fireTime"],
        ports=tuple(facts.get("ports") or ()),
        team=_team(facts),
        traceparent=_traceparent(facts),
        **more,
    )


def firing_context(
    context: Mapping[str, Any], facts: Mapping[str, Any], firing: Mapping[str, Any], **more: Any
) -> FiringContext:
    """The context of a firing listener."""
    return FiringContext(
        job_name=context["jobName"],
        task_id=context["taskId"],
        sharding_total_count=context["shardingTotalCount"],
        job_parameter=context["jobParameter"],
        sharding_parameters={int(item): text for item, text in (firing.get("parameters") or {}).items()},
        run_id=facts["runId"],
        attempt=facts["attempt"],
        fence=facts["fence"],
        fire_time_ms=facts["fireTime"],
        sharding_parameters_left_out=bool(firing.get("parametersLeftOut")),
        outcomes=firing.get("outcomes") or {},
        team=_team(facts),
        traceparent=_traceparent(facts),
        **more,
    )


def _team(facts: Mapping[str, Any]) -> str:
    return facts.get("team") or ShardingContext.team


def _traceparent(facts: Mapping[str, Any]) -> str:
    return facts.get("traceparent") or ""
