package shop.jobs;

import com.dangdang.ddframe.job.executor.ShardingContexts;
import com.dangdang.ddframe.job.lite.api.listener.ElasticJobListener;

public class Refuses implements ElasticJobListener {
    @Override
    public void beforeJobExecuted(ShardingContexts contexts) {
        throw new IllegalStateException("not today");
    }

    @Override
    public void afterJobExecuted(ShardingContexts contexts) {
    }
}
