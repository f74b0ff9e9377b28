package com.dangdang.ddframe.job.api.simple;

import com.dangdang.ddframe.job.api.ElasticJob;
import com.dangdang.ddframe.job.api.ShardingContext;

/** One call per shard and firing; as Elastic-Job 2.1.5 has it. */
public interface SimpleJob extends ElasticJob {

    void execute(ShardingContext shardingContext);
}
