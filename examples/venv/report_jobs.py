"""A job with a library that the agents do not have."""

from __future__ import annotations

import sys

from tabulate import tabulate

from jobcloud.job import ShardingContext, SimpleJob


class Report(SimpleJob):
    """Prints a table."""

    def execute(self, ctx: ShardingContext) -> dict[str, str]:
        print(tabulate([[ctx.sharding_item, ctx.sharding_parameter]], headers=["part", "region"]))
        return {"environment": sys.prefix}
