package com.dangdang.ddframe.job.executor.handler;

import java.util.concurrent.ExecutorService;

/** Makes the threads of a job. The same interface as in Elastic-Job 2.1.5. */
public interface ExecutorServiceHandler {

    ExecutorService createExecutorService(String jobName);
}
