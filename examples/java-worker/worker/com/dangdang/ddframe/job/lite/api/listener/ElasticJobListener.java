package com.dangdang.ddframe.job.lite.api.listener;

import com.dangdang.ddframe.job.executor.ShardingContexts;

/** Is called before and after a job. The same interface as in Elastic-Job-Lite 2.1.5. */
public interface ElasticJobListener {

    void beforeJobExecuted(ShardingContexts shardingContexts);

    void afterJobExecuted(ShardingContexts shardingContexts);
}
