package org.apache.shardingsphere.elasticjob.error.handler;

import java.io.Closeable;
import org.apache.shardingsphere.elasticjob.infra.spi.SPIPostProcessor;
import org.apache.shardingsphere.elasticjob.infra.spi.TypedSPI;

/** Is told of each failure of a job. The same interface as in ElasticJob 3.0. */
public interface JobErrorHandler extends TypedSPI, SPIPostProcessor, Closeable {

    void handleException(String jobName, Throwable cause);

    @Override
    default void close() {
    }
}
