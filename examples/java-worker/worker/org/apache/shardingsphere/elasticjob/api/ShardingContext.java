package org.apache.shardingsphere.elasticjob.api;

import jobcloud.worker.ShardContext;

/** One shard of a run, with the getters of ElasticJob 3.0.0 to 3.0.4. */
public final class ShardingContext extends ShardContext {

    public ShardingContext(String jobName, String taskId, int shardingTotalCount, String jobParameter,
            int shardingItem, String shardingParameter) {
        super(jobName, taskId, shardingTotalCount, jobParameter, shardingItem, shardingParameter);
    }
}
