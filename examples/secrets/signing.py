"""A job of a class gets its secrets in `ctx.secrets`, because all shards of a worker share its environment."""

from __future__ import annotations

import hashlib
import hmac

from jobcloud.job import ShardingContext, SimpleJob


class Sign(SimpleJob):
    def execute(self, ctx: ShardingContext) -> dict[str, str]:
        key = ctx.secrets["SIGNING_KEY"].encode()
        return {"signature": hmac.new(key, ctx.job_parameter.encode(), hashlib.sha256).hexdigest()}
