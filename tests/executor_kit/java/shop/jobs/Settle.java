package shop.jobs;

import com.dangdang.ddframe.job.api.ShardingContext;
import com.dangdang.ddframe.job.api.simple.SimpleJob;

public class Settle implements SimpleJob {
    @Override
    public void execute(ShardingContext context) {
        System.out.println("settling " + context.getShardingItem() + " " + context.getShardingParameter());
    }
}
