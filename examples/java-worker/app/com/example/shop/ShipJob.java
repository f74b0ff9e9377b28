package com.example.shop;

import com.dangdang.ddframe.job.api.ShardingContext;
import com.dangdang.ddframe.job.api.dataflow.DataflowJob;
import java.util.ArrayList;
import java.util.List;

/** A dataflow job as written for Elastic-Job 2.1.5. With streamingProcess it repeats until there is no more data. */
public class ShipJob implements DataflowJob<Integer> {

    private int left = 3;

    @Override
    public List<Integer> fetchData(final ShardingContext shardingContext) {
        List<Integer> found = new ArrayList<>();
        if (left > 0) {
            found.add(left--);
        }
        return found;
    }

    @Override
    public void processData(final ShardingContext shardingContext, final List<Integer> data) {
        System.out.println("shipping " + data);
    }
}
