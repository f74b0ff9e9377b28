package com.dangdang.ddframe.job.executor.handler;

/** Is told of each failure of a job. The same interface as in Elastic-Job 2.1.5. */
public interface JobExceptionHandler {

    void handleException(String jobName, Throwable cause);
}
