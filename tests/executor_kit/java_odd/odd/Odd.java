package odd;

import com.dangdang.ddframe.job.api.ShardingContext;
import com.dangdang.ddframe.job.api.simple.SimpleJob;
import com.dangdang.ddframe.job.executor.handler.ExecutorServiceHandler;
import com.dangdang.ddframe.job.executor.handler.JobExceptionHandler;
import java.util.Collections;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.AbstractExecutorService;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Function;
import java.util.function.Supplier;
import org.apache.shardingsphere.elasticjob.error.handler.JobErrorHandler;
import org.apache.shardingsphere.elasticjob.infra.handler.threadpool.JobExecutorServiceHandler;
import org.apache.shardingsphere.elasticjob.infra.listener.ElasticJobListener;
import org.apache.shardingsphere.elasticjob.infra.listener.ShardingContexts;
import org.apache.shardingsphere.elasticjob.lite.api.listener.AbstractDistributeOnceElasticJobListener;

/** Jobs and plug-ins with unusual behaviour, as nested classes. */
public class Odd {

    private static final AtomicInteger RUNS = new AtomicInteger();

    public static class Exits implements SimpleJob {
        @Override
        public void execute(ShardingContext context) {
            System.exit(3);
        }
    }

    public static class NonAscii implements SimpleJob {
        @Override
        public void execute(ShardingContext context) {
            System.out.println("结算 é 😀 " + context.getShardingParameter());
        }
    }

    public static class Closes implements SimpleJob {
        @Override
        public void execute(ShardingContext context) {
            System.out.close();
            System.err.close();
        }
    }

    /** Its thread prints when the file of its parameter exists. */
    public static class StartsThread implements SimpleJob {
        @Override
        public void execute(ShardingContext context) {
            CountDownLatch started = new CountDownLatch(1);
            Thread thread = new Thread(() -> {
                System.out.println("a thread of the shard");
                started.countDown();
                while (!new java.io.File(context.getShardingParameter()).exists()) {
                    Thread.yield();
                }
                System.out.println("a thread after its shard");
            });
            thread.setDaemon(true);
            thread.start();
            try {
                started.await();
            } catch (InterruptedException stopped) {
                throw new IllegalStateException(stopped);
            }
        }
    }

    public static class BadError implements SimpleJob {
        @Override
        public void execute(ShardingContext context) {
            throw new IllegalStateException() {
                private static final long serialVersionUID = 1;

                @Override
                public String getMessage() {
                    throw new IllegalStateException("no message");
                }
            };
        }
    }

    public static class NoMemory implements SimpleJob {
        @Override
        public void execute(ShardingContext context) {
            throw new OutOfMemoryError("as if");
        }
    }

    public static class Counts implements Function<ShardingContext, Object> {
        @Override
        public Object apply(ShardingContext context) {
            return RUNS.incrementAndGet();
        }
    }

    public class Inner implements SimpleJob {
        @Override
        public void execute(ShardingContext context) {
        }
    }

    public abstract static class Unmade implements SimpleJob {
    }

    public static class NoMap implements Supplier<Object> {
        @Override
        public Object get() {
            return Collections.emptyList();
        }
    }

    /** A context that is built when the file "open" exists. */
    public static class Slow implements Supplier<Object> {
        @Override
        public Object get() {
            System.out.println("building");
            while (!new java.io.File("open").exists()) {
                Thread.yield();
            }
            return Collections.singletonMap("counts", new Counts());
        }
    }

    public static class Quick implements Supplier<Object> {
        @Override
        public Object get() {
            return Collections.singletonMap("counts", new Counts());
        }
    }

    /** Prints the name of its thread, and waits for a kill if its parameter is "wait". */
    public static class Threaded implements SimpleJob {
        @Override
        public void execute(ShardingContext context) {
            System.out.println(Thread.currentThread().getName());
            if ("wait".equals(context.getShardingParameter())) {
                try {
                    Thread.sleep(600_000);
                } catch (InterruptedException stopped) {
                    return;
                }
            }
        }
    }

    public static class OneThread implements ExecutorServiceHandler {
        private static volatile ThreadPoolExecutor last;

        @Override
        public ExecutorService createExecutorService(String jobName) {
            last = new ThreadPoolExecutor(1, 1, 0, TimeUnit.SECONDS, new LinkedBlockingQueue<>(),
                    code -> new Thread(code, "one of " + jobName));
            return last;
        }
    }

    /** Ends its own threads when another shard waits for them. */
    public static class EndsThreads implements SimpleJob {
        @Override
        public void execute(ShardingContext context) {
            System.out.println("runs");
            while (OneThread.last.getQueue().isEmpty()) {
                Thread.yield();
            }
            OneThread.last.shutdownNow();
        }
    }

    /** Runs shards in the threads that ask for it. */
    public static class SameThread implements ExecutorServiceHandler {
        @Override
        public ExecutorService createExecutorService(String jobName) {
            return new AbstractExecutorService() {
                @Override
                public void execute(Runnable code) {
                    code.run();
                }

                @Override
                public void shutdown() {
                }

                @Override
                public List<Runnable> shutdownNow() {
                    return Collections.emptyList();
                }

                @Override
                public boolean isShutdown() {
                    return false;
                }

                @Override
                public boolean isTerminated() {
                    return false;
                }

                @Override
                public boolean awaitTermination(long timeout, TimeUnit unit) {
                    return false;
                }
            };
        }
    }

    public static class NoThreads implements ExecutorServiceHandler {
        @Override
        public ExecutorService createExecutorService(String jobName) {
            ExecutorService ended = Executors.newSingleThreadExecutor();
            ended.shutdown();
            return ended;
        }
    }

    public static class Raises implements SimpleJob {
        @Override
        public void execute(ShardingContext context) {
            throw new IllegalStateException("no stock");
        }
    }

    public static class Tells implements JobExceptionHandler {
        @Override
        public void handleException(String jobName, Throwable cause) {
            System.out.println("told of " + jobName + ": " + cause.getMessage());
        }
    }

    public static class TellsOf3 implements JobErrorHandler {
        private String state = "not initialised";

        @Override
        public void init(Properties props) {
            state = "initialised with " + props.size();
        }

        @Override
        public void handleException(String jobName, Throwable cause) {
            System.out.println(state + ", told of " + jobName + ": " + cause.getMessage());
        }

        @Override
        public String getType() {
            return "TELLS";
        }

        @Override
        public void close() {
            System.err.println("the handler is closed");
        }
    }

    public static class PoolOf3 implements JobExecutorServiceHandler {
        @Override
        public ExecutorService createExecutorService(String jobName) {
            return Executors.newSingleThreadExecutor(code -> new Thread(code, "typed of " + jobName));
        }

        @Override
        public String getType() {
            return "TYPED";
        }
    }

    public abstract static class Says implements ElasticJobListener {
        @Override
        public void beforeJobExecuted(ShardingContexts contexts) {
            System.out.println("before " + getType() + " " + contexts.getShardingItemParameters());
        }

        @Override
        public void afterJobExecuted(ShardingContexts contexts) {
            System.out.println("after " + getType());
        }
    }

    public static class First extends Says {
        @Override
        public String getType() {
            return "FIRST";
        }

        @Override
        public int order() {
            return 1;
        }
    }

    public static class Last extends Says {
        @Override
        public String getType() {
            return "LAST";
        }
    }

    public static class Once extends AbstractDistributeOnceElasticJobListener {
        public Once() {
            super(0, 0);
        }

        @Override
        public void doBeforeJobExecutedAtLastStarted(ShardingContexts contexts) {
            System.out.println("once before " + contexts.getShardingItemParameters());
        }

        @Override
        public void doAfterJobExecutedAtLastCompleted(ShardingContexts contexts) {
            throw new IllegalStateException("the books do not balance");
        }

        @Override
        public String getType() {
            return "ONCE";
        }
    }
}
