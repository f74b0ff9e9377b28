package com.example.bank;

import com.dangdang.ddframe.job.api.ShardingContext;
import com.dangdang.ddframe.job.api.dataflow.DataflowJob;
import java.util.Collections;
import java.util.List;

public class Statements {

    /** A nested class as a bean, configured in XML. Each run gets a bean of its own (scope "prototype"). */
    public static class Job implements DataflowJob<String> {

        private Accounts accounts;
        private int left = 2;

        public void setAccounts(final Accounts accounts) {
            this.accounts = accounts;
        }

        @Override
        public List<String> fetchData(final ShardingContext shardingContext) {
            return left == 0 ? Collections.emptyList() : Collections.singletonList("statement " + left--);
        }

        @Override
        public void processData(final ShardingContext shardingContext, final List<String> data) {
            System.out.println(accounts.use() + ": " + data);
        }
    }
}
