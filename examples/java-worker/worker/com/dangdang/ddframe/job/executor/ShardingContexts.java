package com.dangdang.ddframe.job.executor;

import java.util.Map;

import jobcloud.worker.RunContext;

/** All shards that a listener is called for, with the getters of Elastic-Job 2.1.5. */
public final class ShardingContexts extends RunContext {

    private static final long serialVersionUID = 1;

    public ShardingContexts(String taskId, String jobName, int shardingTotalCount, String jobParameter,
            Map<Integer, String> shardingItemParameters) {
        super(taskId, jobName, shardingTotalCount, jobParameter, shardingItemParameters);
    }
}
