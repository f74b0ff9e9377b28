package shop.jobs;

import com.dangdang.ddframe.job.api.ShardingContext;
import com.dangdang.ddframe.job.api.simple.SimpleJob;

public class Counts implements SimpleJob {
    private int runs;

    @Override
    public void execute(ShardingContext context) {
        System.out.println(++runs + " " + context.getTaskId());
        if (runs == 2) {
            throw new IllegalStateException("the second fails");
        }
    }
}
