package com.example.shop;

import com.dangdang.ddframe.job.api.ShardingContext;
import com.dangdang.ddframe.job.api.simple.SimpleJob;

/** A job as written for Elastic-Job 2.1.5. */
public class SettleJob implements SimpleJob {

    @Override
    public void execute(final ShardingContext shardingContext) {
        System.out.println("settling " + shardingContext.getShardingItem() + " of "
                + shardingContext.getShardingTotalCount() + ": " + shardingContext.getShardingParameter());
    }
}
