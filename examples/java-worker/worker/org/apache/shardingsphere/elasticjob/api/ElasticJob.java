package org.apache.shardingsphere.elasticjob.api;

/** The base of all jobs of ElasticJob 3.0. */
public interface ElasticJob {
}
