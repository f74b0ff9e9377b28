package org.apache.shardingsphere.elasticjob.dataflow.job;

import java.util.List;
import org.apache.shardingsphere.elasticjob.api.ElasticJob;
import org.apache.shardingsphere.elasticjob.api.ShardingContext;

/** Fetches data and processes it. Classes compiled for 3.0.0 to 3.0.4, or for 3.0.5 and later, implement it. */
public interface DataflowJob<T> extends ElasticJob {

    /** The method of ElasticJob 3.0.0 to 3.0.4. */
    List<T> fetchData(ShardingContext shardingContext);

    /** The method of ElasticJob 3.0.0 to 3.0.4. */
    void processData(ShardingContext shardingContext, List<T> data);

    /** The method of ElasticJob 3.0.5 and later. The worker calls this one. */
    default List<T> fetchData(
            org.apache.shardingsphere.elasticjob.spi.executor.item.param.ShardingContext shardingContext) {
        return fetchData(earlier(shardingContext));
    }

    /** The method of ElasticJob 3.0.5 and later. The worker calls this one. */
    default void processData(
            org.apache.shardingsphere.elasticjob.spi.executor.item.param.ShardingContext shardingContext, List<T> data) {
        processData(earlier(shardingContext), data);
    }

    /** The context of 3.0.0 to 3.0.4. */
    static ShardingContext earlier(org.apache.shardingsphere.elasticjob.spi.executor.item.param.ShardingContext later) {
        return new ShardingContext(later.getJobName(), later.getTaskId(), later.getShardingTotalCount(),
                later.getJobParameter(), later.getShardingItem(), later.getShardingParameter());
    }
}
