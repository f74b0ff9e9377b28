package com.dangdang.ddframe.job.api.dataflow;

import com.dangdang.ddframe.job.api.ElasticJob;
import com.dangdang.ddframe.job.api.ShardingContext;
import java.util.List;

/** Fetch, then process what was fetched; as Elastic-Job 2.1.5 has it. */
public interface DataflowJob<T> extends ElasticJob {

    List<T> fetchData(ShardingContext shardingContext);

    void processData(ShardingContext shardingContext, List<T> data);
}
