package org.apache.shardingsphere.elasticjob.simple.job;

import org.apache.shardingsphere.elasticjob.api.ElasticJob;
import org.apache.shardingsphere.elasticjob.api.ShardingContext;

/** One call per shard and run. Classes compiled for ElasticJob 3.0.0 to 3.0.4, or for 3.0.5 and later, implement it. */
public interface SimpleJob extends ElasticJob {

    /** The method of ElasticJob 3.0.0 to 3.0.4. */
    void execute(ShardingContext shardingContext);

    /** The method of ElasticJob 3.0.5 and later, whose context is in another package. The worker calls this one. */
    default void execute(org.apache.shardingsphere.elasticjob.spi.executor.item.param.ShardingContext shardingContext) {
        execute(new ShardingContext(shardingContext.getJobName(), shardingContext.getTaskId(),
                shardingContext.getShardingTotalCount(), shardingContext.getJobParameter(),
                shardingContext.getShardingItem(), shardingContext.getShardingParameter()));
    }
}
