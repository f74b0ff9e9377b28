package shop.jobs;

import com.dangdang.ddframe.job.api.ShardingContext;
import com.dangdang.ddframe.job.api.simple.SimpleJob;

public class Raises implements SimpleJob {
    @Override
    public void execute(ShardingContext context) {
        throw new IllegalStateException("no stock");
    }
}
