package com.dangdang.ddframe.job.api;

/** The base of every job of Elastic-Job 2.1.5. */
public interface ElasticJob {
}
