package shop.jobs;

import com.dangdang.ddframe.job.executor.ShardingContexts;
import com.dangdang.ddframe.job.lite.api.listener.ElasticJobListener;

public class Audits implements ElasticJobListener {
    private int heard;

    @Override
    public void beforeJobExecuted(ShardingContexts contexts) {
        System.out.println("before " + contexts.getShardingItemParameters().keySet().iterator().next() + " " + heard);
    }

    @Override
    public void afterJobExecuted(ShardingContexts contexts) {
        System.out.println("after " + ++heard);
    }
}
