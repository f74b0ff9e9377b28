package jobcloud.worker;

import com.dangdang.ddframe.job.api.ShardingContext;
import java.util.List;
import java.util.Map;
import java.util.function.Consumer;
import java.util.function.Function;
import java.util.function.Supplier;

/** Loads the object of a job, a class of the app or a bean of a context, and runs it. */
final class Jobs {

    /** A job that was loaded. Returns its result. */
    interface Job {

        Object run(Call call, boolean streaming, Supplier<Boolean> cancelled);
    }

    private final AppClasses classes;
    private final Contexts contexts;

    Jobs(AppClasses classes, Contexts contexts) {
        this.classes = classes;
        this.contexts = contexts;
    }

    Job load(Map<?, ?> job) throws LoadError, InterruptedException {
        String context = text(job, "applicationContext");
        String bean = text(job, "beanName");
        boolean named = !context.isEmpty() && !bean.isEmpty();
        String what = named ? "beanName " + bean : "jobClass " + text(job, "jobClass");
        Object made = named ? contexts.bean(context, bean) : classes.create("import", what, text(job, "jobClass"));
        boolean dataflow = "DATAFLOW".equals(job.get("jobType"));
        Job found = dataflow ? dataflow(made) : simple(made);
        if (found == null) {
            String wanted = dataflow ? "DataflowJob" : "SimpleJob or a Function";
            throw new LoadError("import", what + " is a " + made.getClass().getName() + ", must be a " + wanted, null);
        }
        return found;
    }

    /** A Function returns the result. Elastic-Job's own jobs have none. */
    @SuppressWarnings("unchecked")
    private static Job simple(Object made) {
        if (made instanceof com.dangdang.ddframe.job.api.simple.SimpleJob) {
            return (call, streaming, cancelled) -> {
                ((com.dangdang.ddframe.job.api.simple.SimpleJob) made).execute(call.shard());
                return null;
            };
        }
        if (made instanceof org.apache.shardingsphere.elasticjob.simple.job.SimpleJob) {
            return (call, streaming, cancelled) -> {
                ((org.apache.shardingsphere.elasticjob.simple.job.SimpleJob) made).execute(call.shardOf3());
                return null;
            };
        }
        return !(made instanceof Function) ? null
                : (call, streaming, cancelled) -> ((Function<ShardingContext, Object>) made).apply(call.shard());
    }

    @SuppressWarnings("unchecked")
    private static Job dataflow(Object made) {
        if (made instanceof com.dangdang.ddframe.job.api.dataflow.DataflowJob) {
            com.dangdang.ddframe.job.api.dataflow.DataflowJob<Object> flow =
                    (com.dangdang.ddframe.job.api.dataflow.DataflowJob<Object>) made;
            return (call, streaming, cancelled) -> repeat(streaming, cancelled, () -> flow.fetchData(call.shard()),
                    data -> flow.processData(call.shard(), data));
        }
        if (made instanceof org.apache.shardingsphere.elasticjob.dataflow.job.DataflowJob) {
            org.apache.shardingsphere.elasticjob.dataflow.job.DataflowJob<Object> flow =
                    (org.apache.shardingsphere.elasticjob.dataflow.job.DataflowJob<Object>) made;
            return (call, streaming, cancelled) -> repeat(streaming, cancelled, () -> flow.fetchData(call.shardOf3()),
                    data -> flow.processData(call.shardOf3(), data));
        }
        return null;
    }

    private static Object repeat(boolean streaming, Supplier<Boolean> cancelled, Supplier<List<Object>> fetch,
            Consumer<List<Object>> process) {
        List<Object> data = fetch.get();
        while (data != null && !data.isEmpty()) {
            process.accept(data);
            data = streaming && !cancelled.get() ? fetch.get() : null;
        }
        return null;
    }

    static String text(Map<?, ?> fields, String name) {
        Object value = fields.get(name);
        return value instanceof String ? (String) value : "";
    }
}
