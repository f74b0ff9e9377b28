package jobcloud.worker;

import java.util.Collections;
import java.util.Map;
import java.util.TreeMap;
import org.apache.shardingsphere.elasticjob.infra.listener.ShardingContexts;

/** The six facts of a shard, in the forms of both generations of Elastic-Job. */
final class Call {

    final String job;
    private final String task;
    private final int count;
    private final String parameter;
    private final int item;
    private final String itemParameter;

    Call(Map<?, ?> context) {
        job = (String) context.get("jobName");
        task = (String) context.get("taskId");
        count = ((Long) context.get("shardingTotalCount")).intValue();
        parameter = (String) context.get("jobParameter");
        item = ((Long) context.get("shardingItem")).intValue();
        itemParameter = (String) context.get("shardingParameter");
    }

    com.dangdang.ddframe.job.api.ShardingContext shard() {
        return new com.dangdang.ddframe.job.api.ShardingContext(job, task, count, parameter, item, itemParameter);
    }

    org.apache.shardingsphere.elasticjob.spi.executor.item.param.ShardingContext shardOf3() {
        return new org.apache.shardingsphere.elasticjob.spi.executor.item.param.ShardingContext(
                job, task, count, parameter, item, itemParameter);
    }

    /** The parameter of this shard by its item, as listeners get it. */
    Map<Integer, String> own() {
        return Collections.singletonMap(item, itemParameter);
    }

    com.dangdang.ddframe.job.executor.ShardingContexts shards(Map<Integer, String> parameters) {
        return new com.dangdang.ddframe.job.executor.ShardingContexts(task, job, count, parameter, parameters);
    }

    ShardingContexts shardsOf3(Map<Integer, String> parameters) {
        return new ShardingContexts(task, job, count, parameter, parameters);
    }

    /** The parameters of all shards of a run: `parameters` in the order `listen`. Empty ones are not in it. */
    static Map<Integer, String> parameters(Object given) {
        Map<Integer, String> found = new TreeMap<>();
        if (given instanceof Map) {
            ((Map<?, ?>) given).forEach((item, text) -> found.put(Integer.valueOf((String) item), (String) text));
        }
        return found;
    }
}
