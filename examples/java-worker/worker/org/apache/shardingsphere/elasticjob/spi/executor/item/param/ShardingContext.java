package org.apache.shardingsphere.elasticjob.spi.executor.item.param;

import jobcloud.worker.ShardContext;

/** One shard of a run, with the getters of ElasticJob 3.0.5 and later. */
public final class ShardingContext extends ShardContext {

    public ShardingContext(String jobName, String taskId, int shardingTotalCount, String jobParameter,
            int shardingItem, String shardingParameter) {
        super(jobName, taskId, shardingTotalCount, jobParameter, shardingItem, shardingParameter);
    }
}
