package jobcloud.worker;

import java.io.Serializable;
import java.util.Map;

/** All shards that a listener is called for. The classes of each generation have the names that listeners know. */
public abstract class RunContext implements Serializable {

    private static final long serialVersionUID = 1;

    private final String taskId;
    private final String jobName;
    private final int shardingTotalCount;
    private final String jobParameter;
    private final Map<Integer, String> shardingItemParameters;
    private int currentJobEventSamplingCount;
    private boolean allowSendJobEvent = true;

    protected RunContext(String taskId, String jobName, int shardingTotalCount, String jobParameter,
            Map<Integer, String> shardingItemParameters) {
        this.taskId = taskId;
        this.jobName = jobName;
        this.shardingTotalCount = shardingTotalCount;
        this.jobParameter = jobParameter;
        this.shardingItemParameters = shardingItemParameters;
    }

    public String getTaskId() {
        return taskId;
    }

    public String getJobName() {
        return jobName;
    }

    public int getShardingTotalCount() {
        return shardingTotalCount;
    }

    public String getJobParameter() {
        return jobParameter;
    }

    public Map<Integer, String> getShardingItemParameters() {
        return shardingItemParameters;
    }

    /** Always 0: the daemon samples the events, and the worker does not know the number. */
    public int getJobEventSamplingCount() {
        return 0;
    }

    public int getCurrentJobEventSamplingCount() {
        return currentJobEventSamplingCount;
    }

    public void setCurrentJobEventSamplingCount(int count) {
        currentJobEventSamplingCount = count;
    }

    public boolean isAllowSendJobEvent() {
        return allowSendJobEvent;
    }

    public void setAllowSendJobEvent(boolean allow) {
        allowSendJobEvent = allow;
    }

    @Override
    public String toString() {
        return "ShardingContexts(taskId=" + taskId + ", jobName=" + jobName + ", shardingTotalCount=" + shardingTotalCount
                + ", jobParameter=" + jobParameter + ", shardingItemParameters=" + shardingItemParameters + ")";
    }
}
