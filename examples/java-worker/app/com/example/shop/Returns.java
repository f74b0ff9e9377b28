package com.example.shop;

import org.apache.shardingsphere.elasticjob.api.ShardingContext;
import org.apache.shardingsphere.elasticjob.dataflow.job.DataflowJob;
import org.apache.shardingsphere.elasticjob.simple.job.SimpleJob;
import java.util.Collections;
import java.util.List;

/** Jobs as written for ElasticJob 3.0, as nested classes: "com.example.shop.Returns$Check". */
public class Returns {

    public static class Check implements SimpleJob {

        @Override
        public void execute(final ShardingContext shardingContext) {
            if (shardingContext.getShardingParameter().isEmpty()) {
                throw new IllegalStateException("no city");
            }
            System.out.println("checking returns of " + shardingContext.getShardingParameter());
        }
    }

    public static class Refund implements DataflowJob<String> {

        private boolean fetched;

        @Override
        public List<String> fetchData(final ShardingContext shardingContext) {
            List<String> found = fetched ? Collections.emptyList() : Collections.singletonList("order 7");
            fetched = true;
            return found;
        }

        @Override
        public void processData(final ShardingContext shardingContext, final List<String> data) {
            data.forEach(order -> System.out.println("refunding " + order));
        }
    }
}
