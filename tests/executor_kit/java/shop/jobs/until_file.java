package shop.jobs;

import com.dangdang.ddframe.job.api.ShardingContext;
import com.dangdang.ddframe.job.api.simple.SimpleJob;
import java.io.File;

public class until_file implements SimpleJob {
    @Override
    public void execute(ShardingContext context) {
        while (!new File(context.getShardingParameter()).exists()) {
            Thread.yield();
        }
    }
}
