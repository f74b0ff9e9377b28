package shop.jobs;

import org.apache.shardingsphere.elasticjob.infra.listener.ElasticJobListener;
import org.apache.shardingsphere.elasticjob.infra.listener.ShardingContexts;

public class Spoils implements ElasticJobListener {
    @Override
    public void beforeJobExecuted(ShardingContexts contexts) {
    }

    @Override
    public void afterJobExecuted(ShardingContexts contexts) {
        throw new IllegalStateException("no room for the audit");
    }

    @Override
    public String getType() {
        return "spoils";
    }
}
