package org.apache.shardingsphere.elasticjob.infra.handler.threadpool;

import java.util.concurrent.ExecutorService;
import org.apache.shardingsphere.elasticjob.infra.spi.TypedSPI;

/** Makes the threads of a job. The same interface as in ElasticJob 3.0. */
public interface JobExecutorServiceHandler extends TypedSPI {

    ExecutorService createExecutorService(String jobName);
}
