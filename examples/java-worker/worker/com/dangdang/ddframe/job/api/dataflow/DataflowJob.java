package com.dangdang.ddframe.job.api.dataflow;

import com.dangdang.ddframe.job.api.ElasticJob;
import com.dangdang.ddframe.job.api.ShardingContext;
import java.util.List;

/** Fetches data and processes it. The same interface as in Elastic-Job 2.1.5. */
public interface DataflowJob<T> extends ElasticJob {

    List<T> fetchData(ShardingContext shardingContext);

    void processData(ShardingContext shardingContext, List<T> data);
}
