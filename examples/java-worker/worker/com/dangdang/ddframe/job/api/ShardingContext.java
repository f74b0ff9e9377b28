package com.dangdang.ddframe.job.api;

import jobcloud.worker.ShardContext;

/** One shard of a run, with the getters of Elastic-Job 2.1.5. */
public final class ShardingContext extends ShardContext {

    public ShardingContext(String jobName, String taskId, int shardingTotalCount, String jobParameter,
            int shardingItem, String shardingParameter) {
        super(jobName, taskId, shardingTotalCount, jobParameter, shardingItem, shardingParameter);
    }
}
