package shop.jobs;

import com.dangdang.ddframe.job.api.ShardingContext;
import java.util.function.Function;

public class works_on implements Function<ShardingContext, Object> {
    @Override
    public Object apply(ShardingContext context) {
        return "done";
    }
}
