package org.apache.shardingsphere.elasticjob.infra.spi;

import java.util.Properties;

/** A plug-in that gets properties when it is created. The same as in ElasticJob 3.0. */
public interface SPIPostProcessor {

    void init(Properties props);
}
