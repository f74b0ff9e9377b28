package org.apache.shardingsphere.elasticjob.infra.spi;

/** A plug-in with a name, its type. A file in META-INF/services names its class. The same as in ElasticJob 3.0. */
public interface TypedSPI {

    String getType();
}
