package jobcloud.worker;

import com.dangdang.ddframe.job.api.ShardingContext;
import com.dangdang.ddframe.job.executor.handler.ExecutorServiceHandler;
import com.dangdang.ddframe.job.executor.handler.JobExceptionHandler;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.Deque;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.ServiceConfigurationError;
import java.util.ServiceLoader;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedDeque;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.ThreadFactory;
import java.util.function.BiPredicate;
import org.apache.shardingsphere.elasticjob.error.handler.JobErrorHandler;
import org.apache.shardingsphere.elasticjob.infra.handler.threadpool.JobExecutorServiceHandler;
import org.apache.shardingsphere.elasticjob.infra.listener.ElasticJobListener;
import org.apache.shardingsphere.elasticjob.infra.spi.SPIPostProcessor;
import org.apache.shardingsphere.elasticjob.infra.spi.TypedSPI;

/**
 * The listeners and handlers of an app, of both generations of Elastic-Job. Each is created once. A name with a dot or a
 * colon is a class; any other name is a type of ElasticJob 3.0 (TypedSPI), whose class META-INF/services names.
 */
final class Plugins {

    /** Is called around each execution of a shard. */
    interface Listener {

        void before(Call call);

        void after(Call call);
    }

    /** Is called once before and once after a whole run. */
    interface FiringListener {

        void call(boolean before, Call call, Map<Integer, String> parameters);
    }

    /** Is told of a failure. Returns whether the failure is dealt with: then the shard is finished. */
    interface Handler {

        boolean handle(Call call, Throwable error);
    }

    /** A listener raised an exception, which is the cause. */
    static final class ListenerError extends Exception {

        private static final long serialVersionUID = 1;

        ListenerError(String listener, Throwable cause) {
            super("the listener " + listener + " raised " + cause, cause);
        }
    }

    private static final List<String> OWN_HANDLERS = Arrays.asList("", "log", "fail", "ignore", "webhook");
    private static final Class<?>[] TIME_LIMITS = {long.class, long.class};
    private final AppClasses classes;
    private final Map<String, Once<Object>> made = new ConcurrentHashMap<>();
    private final Map<String, Once<ExecutorService>> pools = new ConcurrentHashMap<>();
    private final Deque<AutoCloseable> closing = new ConcurrentLinkedDeque<>();

    Plugins(AppClasses classes) {
        this.classes = classes;
    }

    /** The listeners of a job, in the order of their calls before the job. */
    List<Object> listeners(Map<?, ?> job) throws LoadError, InterruptedException {
        List<Object> found = new ArrayList<>();
        Object names = job.get("listener");
        for (Object name : names instanceof List ? (List<?>) names : Arrays.asList()) {
            Object one = get("listener", (String) name, ElasticJobListener.class);
            boolean once = one instanceof com.dangdang.ddframe.job.lite.api.listener.AbstractDistributeOnceElasticJobListener
                    || one instanceof org.apache.shardingsphere.elasticjob.lite.api.listener
                            .AbstractDistributeOnceElasticJobListener;
            if (once) {
                String fix = ", which is called once for a whole run: name it as distributedListener";
                throw new LoadError("import", "listener " + name + " is a " + one.getClass().getName() + fix, null);
            }
            if (listener(one) == null) {
                throw wrong("listener", name, one, "an ElasticJobListener");
            }
            found.add(one);
        }
        found.sort(Comparator.comparingInt(
                one -> one instanceof ElasticJobListener ? ((ElasticJobListener) one).order() : ElasticJobListener.LOWEST));
        return found;
    }

    /** A listener of either generation by the worker's own interface; null for another object. */
    static Listener listener(Object one) {
        if (one instanceof com.dangdang.ddframe.job.lite.api.listener.ElasticJobListener) {
            com.dangdang.ddframe.job.lite.api.listener.ElasticJobListener listener =
                    (com.dangdang.ddframe.job.lite.api.listener.ElasticJobListener) one;
            return new Listener() {
                @Override
                public void before(Call call) {
                    listener.beforeJobExecuted(call.shards(call.own()));
                }

                @Override
                public void after(Call call) {
                    listener.afterJobExecuted(call.shards(call.own()));
                }
            };
        }
        if (one instanceof ElasticJobListener) {
            return new Listener() {
                @Override
                public void before(Call call) {
                    ((ElasticJobListener) one).beforeJobExecuted(call.shardsOf3(call.own()));
                }

                @Override
                public void after(Call call) {
                    ((ElasticJobListener) one).afterJobExecuted(call.shardsOf3(call.own()));
                }
            };
        }
        return null;
    }

    FiringListener firingListener(Map<?, ?> job) throws LoadError, InterruptedException {
        String name = Jobs.text(job, "distributedListener");
        Object one = get("distributedListener", name, ElasticJobListener.class);
        if (one instanceof com.dangdang.ddframe.job.lite.api.listener.AbstractDistributeOnceElasticJobListener) {
            com.dangdang.ddframe.job.lite.api.listener.AbstractDistributeOnceElasticJobListener listener =
                    (com.dangdang.ddframe.job.lite.api.listener.AbstractDistributeOnceElasticJobListener) one;
            return (before, call, parameters) -> {
                if (before) {
                    listener.doBeforeJobExecutedAtLastStarted(call.shards(parameters));
                } else {
                    listener.doAfterJobExecutedAtLastCompleted(call.shards(parameters));
                }
            };
        }
        if (one instanceof org.apache.shardingsphere.elasticjob.lite.api.listener.AbstractDistributeOnceElasticJobListener) {
            org.apache.shardingsphere.elasticjob.lite.api.listener.AbstractDistributeOnceElasticJobListener listener =
                    (org.apache.shardingsphere.elasticjob.lite.api.listener.AbstractDistributeOnceElasticJobListener) one;
            return (before, call, parameters) -> {
                if (before) {
                    listener.doBeforeJobExecutedAtLastStarted(call.shardsOf3(parameters));
                } else {
                    listener.doAfterJobExecutedAtLastCompleted(call.shardsOf3(parameters));
                }
            };
        }
        throw wrong("distributedListener", name, one, "an AbstractDistributeOnceElasticJobListener");
    }

    /** The error handler of the app, or null if the job uses one of the executor. */
    @SuppressWarnings("unchecked")
    Handler errorHandler(Map<?, ?> job) throws LoadError, InterruptedException {
        String name = Jobs.text(job, "errorHandler");
        if (OWN_HANDLERS.contains(name)) {
            return null;
        }
        Object one = get("job_exception_handler", name, JobErrorHandler.class);
        if (one instanceof JobExceptionHandler) {
            return (call, error) -> {
                ((JobExceptionHandler) one).handleException(call.job, error);
                return false;
            };
        }
        if (one instanceof JobErrorHandler) {
            return (call, error) -> {
                ((JobErrorHandler) one).handleException(call.job, error);
                return false;
            };
        }
        if (one instanceof BiPredicate) {
            return (call, error) -> ((BiPredicate<ShardingContext, Throwable>) one).test(call.shard(), error);
        }
        throw wrong("job_exception_handler", name, one, "a JobExceptionHandler, a JobErrorHandler or a BiPredicate");
    }

    /** The threads for the shards of a job, or null if each shard has a thread of its own. */
    ExecutorService executor(Map<?, ?> job, String jobName) throws LoadError, InterruptedException {
        String name = Jobs.text(job, "executorService");
        if (name.isEmpty()) {
            return null;
        }
        return pools.computeIfAbsent(name + "\n" + jobName, any -> new Once<>()).get(() -> {
            ExecutorService pool = newExecutor(name, jobName);
            closing.addFirst(pool::shutdownNow);
            return pool;
        });
    }

    private ExecutorService newExecutor(String name, String jobName) throws LoadError, InterruptedException {
        ThreadFactory threads = code -> {
            Thread thread = new Thread(code, jobName);
            thread.setDaemon(true);
            return thread;
        };
        if ("CPU".equals(name)) {
            return Executors.newFixedThreadPool(2 * Runtime.getRuntime().availableProcessors(), threads);
        }
        if ("SINGLE_THREAD".equals(name)) {
            return Executors.newSingleThreadExecutor(threads);
        }
        Object one = get("executor_service_handler", name, JobExecutorServiceHandler.class);
        ExecutorService pool = null;
        try {
            if (one instanceof ExecutorServiceHandler) {
                pool = ((ExecutorServiceHandler) one).createExecutorService(jobName);
            } else if (one instanceof JobExecutorServiceHandler) {
                pool = ((JobExecutorServiceHandler) one).createExecutorService(jobName);
            } else {
                throw wrong("executor_service_handler", name, one, "an ExecutorServiceHandler or a JobExecutorServiceHandler");
            }
        } catch (RuntimeException | LinkageError error) {
            throw new LoadError("import", "executor_service_handler " + name + " raised " + error, error);
        }
        if (pool == null) {
            throw new LoadError("import", "executor_service_handler " + name + " returned null", null);
        }
        return pool;
    }

    /** Ends the threads, and closes the plug-ins that can be closed. */
    void close() {
        for (AutoCloseable one : closing) {
            try {
                one.close();
            } catch (Exception error) {
                error.printStackTrace();
            }
        }
    }

    private Object get(String field, String name, Class<? extends TypedSPI> spi) throws LoadError, InterruptedException {
        return made.computeIfAbsent(field + "\n" + name, any -> new Once<>()).get(() -> {
            boolean type = name.indexOf('.') < 0 && name.indexOf(':') < 0;
            Object found = type ? ofType(field, name, spi)
                    : classes.create("import", field + " " + name, name, TIME_LIMITS);
            if (found instanceof SPIPostProcessor) {
                try {
                    ((SPIPostProcessor) found).init(new Properties());
                } catch (RuntimeException | LinkageError error) {
                    throw new LoadError("import", field + " " + name + " raised " + error, error);
                }
            }
            if (found instanceof AutoCloseable) {
                closing.addFirst((AutoCloseable) found);
            }
            return found;
        });
    }

    private Object ofType(String field, String name, Class<? extends TypedSPI> spi) throws LoadError {
        List<String> known = new ArrayList<>();
        try {
            for (TypedSPI one : ServiceLoader.load(spi, classes.loader())) {
                if (name.equals(one.getType())) {
                    return one;
                }
                known.add(one.getType());
            }
        } catch (ServiceConfigurationError error) {
            throw new LoadError("import", field + " " + name + " cannot be found: " + error, error);
        }
        throw new LoadError("import", field + " " + name + " is not a type in META-INF/services/" + spi.getName()
                + "; known: " + (known.isEmpty() ? "none" : String.join(", ", known)) + "; or name a class", null);
    }

    private static LoadError wrong(String field, Object name, Object made, String wanted) {
        return new LoadError("import", field + " " + name + " is a " + made.getClass().getName() + ", must be "
                + wanted, null);
    }
}
