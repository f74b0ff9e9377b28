package jobcloud.worker;

import java.io.BufferedInputStream;
import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.charset.StandardCharsets;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Future;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/** A worker for jobs in Java: docs/executor.md, "The line protocol". The last two arguments are its descriptors. */
public final class Main {

    private static final long PROTOCOL = 2;
    private static final int MAX_LINE = 1 << 20;
    private static final int MAX_TEXT = 4000;

    /** A run is interrupted to stop it. It has noticed if it cleared the interruption. */
    private static final class Shard {

        private Thread thread;
        private boolean entered;
        volatile boolean cancelled;
        volatile boolean noticed;

        synchronized void start(Thread first) {
            thread = first;
            first.start();
        }

        synchronized void stop() {
            cancelled = true;
            thread.interrupt();
        }

        /** Runs the shard in this thread from now on. False if it was stopped before. */
        synchronized boolean enter() {
            thread = Thread.currentThread();
            entered = !cancelled;
            return entered;
        }

        synchronized boolean hasEntered() {
            return entered;
        }

        /** Leaves this thread. A stop from now on interrupts `next`. */
        synchronized void leave(Thread next) {
            thread = next;
        }
    }

    private final InputStream orders;
    private final OutputStream answers;
    private final Output out = new Output(System.out);
    private final Output err = new Output(System.err);
    private final Map<String, Shard> shards = new ConcurrentHashMap<>();
    private final Map<String, Jobs.Job> kept = new ConcurrentHashMap<>();
    private String tasks = "";
    private AppClasses classes;
    private Contexts contexts;
    private Jobs jobs;
    private Plugins plugins;

    private Main(InputStream orders, OutputStream answers) {
        this.orders = orders;
        this.answers = answers;
        System.setOut(out.stream());
        System.setErr(err.stream());
    }

    public static void main(String[] arguments) throws Exception {
        String descriptors = "/proc/self/fd/";
        try (InputStream orders = new BufferedInputStream(new FileInputStream(descriptors + arguments[arguments.length - 2]));
                OutputStream answers = new FileOutputStream(descriptors + arguments[arguments.length - 1])) {
            System.exit(new Main(orders, answers).obeyAll());
        } catch (IllegalArgumentException | ClassCastException | NullPointerException wrong) {
            wrong.printStackTrace();
            System.exit(2);
        }
    }

    private int obeyAll() throws Exception {
        for (String line = line(); line != null; line = line()) {
            Map<?, ?> order = (Map<?, ?>) Json.read(line);
            if ("stop".equals(order.get("type"))) {
                if (classes != null) {
                    plugins.close();
                    contexts.close();
                }
                return 0;
            }
            obey(order);
        }
        return 1;
    }

    private void obey(Map<?, ?> order) throws IOException {
        switch ((String) order.get("type")) {
            case "hello":
                if (!Long.valueOf(PROTOCOL).equals(order.get("protocol"))) {
                    throw new IllegalArgumentException(
                            "the daemon speaks protocol " + order.get("protocol") + ", not " + PROTOCOL);
                }
                tasks = (String) order.get("tasks");
                classes = new AppClasses(new File((String) order.get("directory")));
                contexts = new Contexts(classes);
                jobs = new Jobs(classes, contexts);
                plugins = new Plugins(classes);
                say("ready", "protocol", PROTOCOL);
                break;
            case "run":
            case "load":
            case "listen":
                begin(order);
                break;
            case "warm":
                List<?> names = (List<?>) order.get("contexts");
                thread("warm", () -> names.forEach(name -> contexts.warm((String) name))).start();
                break;
            case "cancel":
                Shard shard = shards.get((String) order.get("task"));
                if (shard != null) {
                    shard.stop();
                }
                break;
            case "forget":
                kept.remove((String) order.get("task"));
                break;
            default:
                throw new IllegalArgumentException("unknown order: " + order.get("type"));
        }
    }

    private void begin(Map<?, ?> order) {
        String task = (String) order.get("task");
        Shard shard = new Shard();
        shards.put(task, shard);
        shard.start(thread(task, () -> run(order, task, shard)));
    }

    private Thread thread(String name, Runnable code) {
        Thread thread = new Thread(code, name);
        thread.setDaemon(true);
        thread.setContextClassLoader(classes.loader());
        return thread;
    }

    private void run(Map<?, ?> order, String task, Shard shard) {
        if (!tasks.isEmpty()) {
            File folder = new File(tasks, Output.folder(task));
            out.open(new File(folder, "stdout"));
            err.open(new File(folder, "stderr"));
        }
        say("started", "task", task, "run", order.get("run"));
        Map<String, Object> end;
        try {
            end = outcome(order, task, shard);
        } catch (Throwable error) {
            end = end("failed", "exception", "the job's error cannot be reported: " + error.getClass().getName(), null);
        }
        out.leave();
        err.leave();
        shards.remove(task);
        end.put("type", "ended");
        end.put("task", task);
        end.put("run", order.get("run"));
        say(end);
    }

    private Map<String, Object> outcome(Map<?, ?> order, String task, Shard shard) {
        Map<?, ?> job = (Map<?, ?>) order.get("job");
        Call call = new Call((Map<?, ?>) order.get("context"));
        try {
            ExecutorService pool = "listen".equals(order.get("type")) ? null : plugins.executor(job, call.job);
            if (pool == null || "load".equals(order.get("type"))) {
                return attempt(order, task, shard, job, call);
            }
            return in(pool, shard, () -> attempt(order, task, shard, job, call));
        } catch (LoadError error) {
            return unloadable(error);
        } catch (InterruptedException stopped) {
            return end("killed", "killed", "the job was stopped before it began", null);
        }
    }

    private interface Code {

        Map<String, Object> run();
    }

    /** Runs the code of a shard in a thread of the app. This thread waits for it. */
    private Map<String, Object> in(ExecutorService pool, Shard shard, Code code) throws LoadError, InterruptedException {
        Thread waiting = Thread.currentThread();
        Output.Log toOut = out.log();
        Output.Log toErr = err.log();
        Future<Map<String, Object>> future;
        try {
            future = pool.submit(() -> {
                Thread thread = Thread.currentThread();
                ClassLoader before = thread.getContextClassLoader();
                if (!shard.enter()) {
                    return end("killed", "killed", "the job was stopped before it began", null);
                }
                // It may be this very thread, if the executor service has none of its own.
                Output.Log beforeOut = out.log();
                Output.Log beforeErr = err.log();
                out.join(toOut);
                err.join(toErr);
                thread.setContextClassLoader(classes.loader());
                try {
                    return code.run();
                } finally {
                    thread.setContextClassLoader(before);
                    out.join(beforeOut);
                    err.join(beforeErr);
                    shard.leave(waiting);
                }
            });
        } catch (RejectedExecutionException error) {
            throw new LoadError("import", "the executor service of the job takes no shard: " + error, error);
        }
        for (;;) {
            try {
                return future.get(1, TimeUnit.SECONDS);
            } catch (InterruptedException stopped) {
                if (!shard.hasEntered()) {
                    throw stopped;
                }
            } catch (TimeoutException stillRuns) {
                if (pool.isTerminated() && !future.isDone()) {
                    throw new LoadError("import", "the executor service of the job was shut down", null);
                }
            } catch (ExecutionException error) {
                throw new IllegalStateException(error.getCause());
            }
        }
    }

    private Map<String, Object> attempt(Map<?, ?> order, String task, Shard shard, Map<?, ?> job, Call call) {
        try {
            if ("listen".equals(order.get("type"))) {
                return listen(order, shard, job, call);
            }
            // Load everything before the job runs.
            List<Object> listeners = plugins.listeners(job);
            Plugins.Handler handler = plugins.errorHandler(job);
            Jobs.Job loaded = kept.get(task);
            loaded = loaded == null ? jobs.load(job) : loaded;
            if (Boolean.TRUE.equals(order.get("keep"))) {
                kept.put(task, loaded);
            }
            if ("load".equals(order.get("type"))) {
                return end("finished", null, "", null);
            }
            return perform(loaded, listeners, handler, shard, job, call);
        } catch (LoadError error) {
            return unloadable(error);
        } catch (Throwable error) {
            return failure(error, shard, job);
        }
    }

    private Map<String, Object> perform(Jobs.Job loaded, List<Object> listeners, Plugins.Handler handler, Shard shard,
            Map<?, ?> job, Call call) throws Throwable {
        boolean streaming = Boolean.TRUE.equals(job.get("streamingProcess"));
        Object result;
        try {
            result = around(listeners, call, () -> loaded.run(call, streaming, () -> {
                shard.noticed |= shard.cancelled;
                return shard.cancelled;
            }));
        } catch (Throwable error) {
            if (handler == null || noticed(shard) || !handled(handler, call, error)) {
                throw error;
            }
            return end("finished", null, "the error handler handled " + describe(error), null);
        }
        if (noticed(shard)) {
            return end("killed", "killed", "the job returned after it was asked to stop", null);
        }
        return finished(result);
    }

    private Map<String, Object> listen(Map<?, ?> order, Shard shard, Map<?, ?> job, Call call) throws Exception {
        Plugins.FiringListener listener = plugins.firingListener(job);
        Map<?, ?> firing = (Map<?, ?>) order.get("firing");
        try {
            listener.call("before".equals(order.get("step")), call, Call.parameters(firing.get("parameters")));
        } catch (Throwable error) {
            throw new Plugins.ListenerError(Jobs.text(job, "distributedListener"), error);
        }
        if (noticed(shard)) {
            return end("killed", "killed", "the listener returned after it was asked to stop", null);
        }
        return end("finished", null, "", null);
    }

    private interface Work {

        Object run() throws Throwable;
    }

    /** Calls the listeners before the work in their order, and after it in reverse order. */
    private static Object around(List<Object> listeners, Call call, Work work) throws Throwable {
        Deque<Object> entered = new ArrayDeque<>();
        Throwable raised = null;
        Object result = null;
        try {
            for (Object listener : listeners) {
                try {
                    Plugins.listener(listener).before(call);
                } catch (Throwable error) {
                    throw new Plugins.ListenerError(listener.getClass().getName(), error);
                }
                entered.push(listener);
            }
            result = work.run();
        } catch (Throwable error) {
            raised = error;
        }
        for (Object listener : entered) {
            try {
                Plugins.listener(listener).after(call);
            } catch (Throwable error) {
                Throwable further = new Plugins.ListenerError(listener.getClass().getName(), error);
                if (raised != null) {
                    further.printStackTrace();
                }
                raised = raised == null ? further : raised;
            }
        }
        if (raised != null) {
            throw raised;
        }
        return result;
    }

    private static boolean handled(Plugins.Handler handler, Call call, Throwable error) {
        try {
            return handler.handle(call, error);
        } catch (Throwable further) {
            System.err.println("the error handler raised:");
            further.printStackTrace();
            return false;
        }
    }

    private static Map<String, Object> unloadable(LoadError error) {
        if (error.getCause() != null) {
            error.getCause().printStackTrace();
        }
        return end("failed", error.reason, error.getMessage(), null);
    }

    private static Map<String, Object> failure(Throwable error, Shard shard, Map<?, ?> job) {
        boolean killed = noticed(shard);
        String handler = Jobs.text(job, "errorHandler");
        if (killed || !("fail".equals(handler) || "ignore".equals(handler))) {
            error.printStackTrace();
        }
        String cause = error instanceof Plugins.ListenerError ? "listener"
                : error instanceof OutOfMemoryError ? "out_of_memory" : "exception";
        return end(killed ? "killed" : "failed", killed ? "killed" : cause, describe(error), null);
    }

    /** An interruption that is still set was not noticed, or the job only called isInterrupted(). */
    private static boolean noticed(Shard shard) {
        return shard.noticed || shard.cancelled && !Thread.currentThread().isInterrupted();
    }

    private static Map<String, Object> finished(Object result) {
        try {
            boolean small = Json.write(result).length() <= MAX_TEXT;
            String note = small ? "" : "the result was dropped: more than " + MAX_TEXT + " bytes of JSON";
            return end("finished", null, note, small ? result : null);
        } catch (IllegalArgumentException | StackOverflowError error) {
            return end("finished", null, "the result was dropped, as it has no JSON form: " + error.getMessage(), null);
        }
    }

    private static Map<String, Object> end(String state, String cause, String message, Object result) {
        Map<String, Object> end = new LinkedHashMap<>();
        end.put("state", state);
        end.put("cause", cause);
        end.put("message", cut(message));
        end.put("exitCode", null);
        end.put("result", result);
        return end;
    }

    private static String describe(Throwable error) {
        StringWriter trace = new StringWriter();
        error.printStackTrace(new PrintWriter(trace));
        return (error instanceof Plugins.ListenerError ? error.getMessage() : error) + "\n\n" + trace;
    }

    private static String cut(String text) {
        return text.length() <= MAX_TEXT ? text : text.substring(0, MAX_TEXT);
    }

    private void say(String type, Object... fields) {
        Map<String, Object> message = new LinkedHashMap<>();
        message.put("type", type);
        for (int i = 0; i < fields.length; i += 2) {
            message.put((String) fields[i], fields[i + 1]);
        }
        say(message);
    }

    private void say(Map<String, Object> message) {
        byte[] line = (Json.write(message) + "\n").getBytes(StandardCharsets.UTF_8);
        synchronized (answers) {
            try {
                answers.write(line);
                answers.flush();
            } catch (IOException gone) {
                Runtime.getRuntime().halt(1);
            }
        }
    }

    private String line() throws IOException {
        ByteArrayOutputStream line = new ByteArrayOutputStream();
        for (int b = orders.read(); b >= 0; b = orders.read()) {
            if (b == '\n') {
                return line.toString("UTF-8");
            }
            if (line.size() >= MAX_LINE) {
                throw new IllegalArgumentException("a line is over the limit of " + MAX_LINE + " bytes");
            }
            line.write(b);
        }
        return null;
    }
}
