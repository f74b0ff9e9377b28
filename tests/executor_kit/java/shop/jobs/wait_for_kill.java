package shop.jobs;

import com.dangdang.ddframe.job.api.ShardingContext;
import com.dangdang.ddframe.job.api.simple.SimpleJob;

public class wait_for_kill implements SimpleJob {
    @Override
    public void execute(ShardingContext context) {
        try {
            Thread.sleep(600_000);
        } catch (InterruptedException killed) {
            return;
        }
    }
}
