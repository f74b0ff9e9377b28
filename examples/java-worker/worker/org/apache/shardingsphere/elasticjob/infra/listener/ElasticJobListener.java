package org.apache.shardingsphere.elasticjob.infra.listener;

import org.apache.shardingsphere.elasticjob.infra.spi.TypedSPI;

/** Is called before and after a job. The same interface as in ElasticJob 3.0. */
public interface ElasticJobListener extends TypedSPI {

    int LOWEST = Integer.MAX_VALUE;

    void beforeJobExecuted(ShardingContexts shardingContexts);

    void afterJobExecuted(ShardingContexts shardingContexts);

    /** Listeners with smaller numbers are called first. */
    default int order() {
        return LOWEST;
    }
}
