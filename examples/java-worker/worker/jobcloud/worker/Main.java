package jobcloud.worker;

import com.dangdang.ddframe.job.api.ShardingContext;
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
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

/** A worker for jobs in Java: docs/executor.md, "The line protocol". The last two arguments are its descriptors. */
public final class Main {

    private static final long PROTOCOL = 2;
    private static final int MAX_LINE = 1 << 20;
    private static final int MAX_TEXT = 4000;

    /** A run is interrupted to stop it. It has noticed if it cleared the interruption. */
    private static final class Shard {

        final Thread thread;
        volatile boolean cancelled;
        volatile boolean noticed;

        Shard(Thread thread) {
            this.thread = thread;
        }
    }

    private final InputStream orders;
    private final OutputStream answers;
    private final Output out = new Output(System.out);
    private final Output err = new Output(System.err);
    private final Map<String, Shard> shards = new ConcurrentHashMap<>();
    private final Map<String, Object> kept = new ConcurrentHashMap<>();
    private String tasks = "";
    private Jobs jobs;

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
                if (jobs != null) {
                    jobs.close();
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
                jobs = new Jobs(new File((String) order.get("directory")));
                say("ready", "protocol", PROTOCOL);
                break;
            case "run":
            case "load":
            case "listen":
                begin(order);
                break;
            case "warm":
                List<?> contexts = (List<?>) order.get("contexts");
                Thread warming = new Thread(() -> contexts.forEach(context -> jobs.warm((String) context)), "warm");
                warming.setDaemon(true);
                warming.setContextClassLoader(jobs.classes());
                warming.start();
                break;
            case "cancel":
                Shard shard = shards.get((String) order.get("task"));
                if (shard != null) {
                    shard.cancelled = true;
                    shard.thread.interrupt();
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
        Thread thread = new Thread(() -> run(order, task), task);
        thread.setDaemon(true);
        thread.setContextClassLoader(jobs.classes());
        shards.put(task, new Shard(thread));
        thread.start();
    }

    private void run(Map<?, ?> order, String task) {
        Shard shard = shards.get(task);
        if (!tasks.isEmpty()) {
            File folder = new File(tasks, Output.folder(task));
            out.open(new File(folder, "stdout"));
            err.open(new File(folder, "stderr"));
        }
        say("started", "task", task, "run", order.get("run"));
        Map<String, Object> end = outcome(order, task, shard);
        out.leave();
        err.leave();
        shards.remove(task);
        end.put("type", "ended");
        end.put("task", task);
        end.put("run", order.get("run"));
        say(end);
    }

    private Map<String, Object> outcome(Map<?, ?> order, String task, Shard shard) {
        try {
            Map<?, ?> job = (Map<?, ?>) order.get("job");
            Jobs.refuseUnknown(job, "listen".equals(order.get("type")));
            Object loaded = kept.get(task);
            loaded = loaded == null ? jobs.load(job) : loaded;
            if (Boolean.TRUE.equals(order.get("keep"))) {
                kept.put(task, loaded);
            }
            if ("load".equals(order.get("type"))) {
                return end("finished", null, "", null);
            }
            boolean streaming = Boolean.TRUE.equals(job.get("streamingProcess"));
            Object result = Jobs.perform(loaded, context((Map<?, ?>) order.get("context")), streaming, () -> {
                shard.noticed |= shard.cancelled;
                return shard.cancelled;
            });
            if (noticed(shard)) {
                return end("killed", "killed", "the job returned after it was asked to stop", null);
            }
            return finished(result);
        } catch (Jobs.LoadError error) {
            return end("failed", error.reason, error.getMessage(), null);
        } catch (Throwable error) {
            error.printStackTrace();
            boolean killed = noticed(shard);
            return end(killed ? "killed" : "failed", killed ? "killed" : "exception", describe(error), null);
        }
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

    private static ShardingContext context(Map<?, ?> fields) {
        return new ShardingContext((String) fields.get("jobName"), (String) fields.get("taskId"),
                ((Long) fields.get("shardingTotalCount")).intValue(), (String) fields.get("jobParameter"),
                ((Long) fields.get("shardingItem")).intValue(), (String) fields.get("shardingParameter"));
    }

    private static String describe(Throwable error) {
        StringWriter trace = new StringWriter();
        error.printStackTrace(new PrintWriter(trace));
        return error + "\n\n" + trace;
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
                return line.toString(StandardCharsets.UTF_8);
            }
            if (line.size() >= MAX_LINE) {
                throw new IllegalArgumentException("a line is over the limit of " + MAX_LINE + " bytes");
            }
            line.write(b);
        }
        return null;
    }
}
