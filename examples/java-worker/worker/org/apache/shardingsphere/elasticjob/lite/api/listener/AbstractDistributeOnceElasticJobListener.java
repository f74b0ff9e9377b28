package org.apache.shardingsphere.elasticjob.lite.api.listener;

import org.apache.shardingsphere.elasticjob.infra.listener.ElasticJobListener;
import org.apache.shardingsphere.elasticjob.infra.listener.ShardingContexts;

/**
 * Is called once before and once after a whole run, by the names of ElasticJob-Lite 3.0. The scheduler makes the two
 * calls, as `distributedListener` of the job, and limits their times. So the time limits given here have no effect.
 */
public abstract class AbstractDistributeOnceElasticJobListener implements ElasticJobListener {

    public AbstractDistributeOnceElasticJobListener(long startedTimeoutMilliseconds, long completedTimeoutMilliseconds) {
    }

    /** Never called: the worker refuses this class as a `listener`. */
    @Override
    public final void beforeJobExecuted(ShardingContexts shardingContexts) {
        throw new UnsupportedOperationException("name the class as distributedListener");
    }

    /** Never called: the worker refuses this class as a `listener`. */
    @Override
    public final void afterJobExecuted(ShardingContexts shardingContexts) {
        throw new UnsupportedOperationException("name the class as distributedListener");
    }

    public abstract void doBeforeJobExecutedAtLastStarted(ShardingContexts shardingContexts);

    public abstract void doAfterJobExecutedAtLastCompleted(ShardingContexts shardingContexts);
}
