package com.example.bank;

import com.dangdang.ddframe.job.api.ShardingContext;
import com.dangdang.ddframe.job.api.simple.SimpleJob;
import javax.annotation.Resource;
import org.springframework.stereotype.Component;

/** A bean with annotations, as in Elastic-Job's own examples. */
@Component
public class InterestJob implements SimpleJob {

    @Resource
    private Accounts accounts;

    @Override
    public void execute(final ShardingContext shardingContext) {
        System.out.println(accounts.use() + ": interest of " + shardingContext.getShardingParameter());
    }
}
