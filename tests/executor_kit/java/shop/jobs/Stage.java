package shop.jobs;

import com.dangdang.ddframe.job.executor.ShardingContexts;
import com.dangdang.ddframe.job.lite.api.listener.AbstractDistributeOnceElasticJobListener;

public class Stage extends AbstractDistributeOnceElasticJobListener {
    public Stage(long startedTimeoutMilliseconds, long completedTimeoutMilliseconds) {
        super(startedTimeoutMilliseconds, completedTimeoutMilliseconds);
    }

    @Override
    public void doBeforeJobExecutedAtLastStarted(ShardingContexts contexts) {
        System.out.println("opening " + contexts.getShardingTotalCount() + " " + contexts.getShardingItemParameters());
    }

    @Override
    public void doAfterJobExecutedAtLastCompleted(ShardingContexts contexts) {
        System.out.println("closing " + contexts.getJobName());
    }
}
