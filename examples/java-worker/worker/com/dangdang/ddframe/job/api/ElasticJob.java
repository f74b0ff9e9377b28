package com.dangdang.ddframe.job.api;

/** What every job of Elastic-Job 2.1.5 is. */
public interface ElasticJob {
}
