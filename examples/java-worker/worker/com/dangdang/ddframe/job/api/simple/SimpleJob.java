package com.dangdang.ddframe.job.api.simple;

import com.dangdang.ddframe.job.api.ElasticJob;
import com.dangdang.ddframe.job.api.ShardingContext;

/** One call per shard and run. The same interface as in Elastic-Job 2.1.5. */
public interface SimpleJob extends ElasticJob {

    void execute(ShardingContext shardingContext);
}
