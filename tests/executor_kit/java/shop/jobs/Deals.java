package shop.jobs;

import com.dangdang.ddframe.job.api.ShardingContext;
import java.util.function.BiPredicate;

public class Deals implements BiPredicate<ShardingContext, Throwable> {
    @Override
    public boolean test(ShardingContext context, Throwable error) {
        if ("raise".equals(context.getShardingParameter())) {
            throw new IllegalStateException("nobody to tell");
        }
        System.out.println("handling " + error.getClass().getSimpleName());
        return "deal".equals(context.getShardingParameter());
    }
}
