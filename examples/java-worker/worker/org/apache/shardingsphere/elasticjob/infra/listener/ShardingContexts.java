package org.apache.shardingsphere.elasticjob.infra.listener;

import java.util.Map;

import jobcloud.worker.RunContext;

/** All shards that a listener is called for, with the getters of ElasticJob 3.0. */
public final class ShardingContexts extends RunContext {

    private static final long serialVersionUID = 1;

    public ShardingContexts(String taskId, String jobName, int shardingTotalCount, String jobParameter,
            Map<Integer, String> shardingItemParameters) {
        super(taskId, jobName, shardingTotalCount, jobParameter, shardingItemParameters);
    }
}
