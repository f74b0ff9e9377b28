package com.dangdang.ddframe.job.api;

/** The base of all jobs of Elastic-Job 2.1.5. */
public interface ElasticJob {
}
