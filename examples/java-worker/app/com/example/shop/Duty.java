package com.example.shop;

import com.dangdang.ddframe.job.executor.ShardingContexts;
import com.dangdang.ddframe.job.executor.handler.ExecutorServiceHandler;
import com.dangdang.ddframe.job.executor.handler.JobExceptionHandler;
import com.dangdang.ddframe.job.lite.api.listener.AbstractDistributeOnceElasticJobListener;
import com.dangdang.ddframe.job.lite.api.listener.ElasticJobListener;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/** Listeners and handlers as written for Elastic-Job 2.1.5. */
public class Duty {

    /** "listener": ["com.example.shop.Duty$Audit"]: around each execution of a shard. */
    public static class Audit implements ElasticJobListener {

        @Override
        public void beforeJobExecuted(final ShardingContexts shardingContexts) {
            System.out.println("before " + shardingContexts.getShardingItemParameters());
        }

        @Override
        public void afterJobExecuted(final ShardingContexts shardingContexts) {
            System.out.println("after " + shardingContexts.getShardingItemParameters());
        }
    }

    /** "distributedListener": {"class": "com.example.shop.Duty$Ledger"}: once before and once after a whole run. */
    public static class Ledger extends AbstractDistributeOnceElasticJobListener {

        public Ledger(final long startedTimeoutMilliseconds, final long completedTimeoutMilliseconds) {
            super(startedTimeoutMilliseconds, completedTimeoutMilliseconds);
        }

        @Override
        public void doBeforeJobExecutedAtLastStarted(final ShardingContexts shardingContexts) {
            System.out.println("opening the ledger for " + shardingContexts.getShardingItemParameters());
        }

        @Override
        public void doAfterJobExecutedAtLastCompleted(final ShardingContexts shardingContexts) {
            System.out.println("closing the ledger");
        }
    }

    /** "jobProperties": {"job_exception_handler": "com.example.shop.Duty$Pager"}: is told of each failure. */
    public static class Pager implements JobExceptionHandler {

        @Override
        public void handleException(final String jobName, final Throwable cause) {
            System.out.println("paging for " + jobName + ": " + cause.getMessage());
        }
    }

    /** "jobProperties": {"executor_service_handler": "com.example.shop.Duty$OneThread"}: the threads of a job. */
    public static class OneThread implements ExecutorServiceHandler {

        @Override
        public ExecutorService createExecutorService(final String jobName) {
            return Executors.newSingleThreadExecutor(code -> new Thread(code, "the thread of " + jobName));
        }
    }
}
