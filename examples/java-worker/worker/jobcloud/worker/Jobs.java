package jobcloud.worker;

import com.dangdang.ddframe.job.api.ShardingContext;
import com.dangdang.ddframe.job.api.dataflow.DataflowJob;
import com.dangdang.ddframe.job.api.simple.SimpleJob;
import java.io.File;
import java.net.MalformedURLException;
import java.net.URL;
import java.net.URLClassLoader;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Function;
import java.util.function.Supplier;

/** Loads the object of a job: a class of the app's JARs, or a bean of a context that is built once. */
final class Jobs {

    /** The job cannot be loaded. `reason` is a cause of the protocol. */
    static final class LoadError extends Exception {

        private static final long serialVersionUID = 1;
        final String reason;

        LoadError(String reason, String text, Throwable cause) {
            super(text, cause);
            this.reason = reason;
        }
    }

    private static final List<String> OWN_HANDLERS = List.of("log", "fail", "ignore", "webhook");
    private final ClassLoader classes;
    private final Map<String, Map<?, ?>> contexts = new HashMap<>();
    private final List<AutoCloseable> closing = new ArrayList<>();

    /** The classes of the directory itself and of all JARs in it and in its `lib`. */
    Jobs(File directory) throws MalformedURLException {
        List<URL> found = new ArrayList<>();
        found.add(directory.toURI().toURL());
        for (File folder : new File[] {directory, new File(directory, "lib")}) {
            File[] jars = folder.listFiles((in, name) -> name.endsWith(".jar"));
            for (File jar : jars == null ? new File[0] : jars) {
                found.add(jar.toURI().toURL());
            }
        }
        classes = new URLClassLoader(found.toArray(new URL[0]), Jobs.class.getClassLoader());
    }

    ClassLoader classes() {
        return classes;
    }

    /** Refuses jobs that need a feature which this worker lacks. */
    static void refuseUnknown(Map<?, ?> job, boolean firing) throws LoadError {
        Object listeners = job.get("listener");
        if (firing || listeners instanceof List && !((List<?>) listeners).isEmpty()) {
            throw new LoadError("import", "the worker for Java does not support listeners", null);
        }
        String handler = text(job, "errorHandler");
        if (!handler.isEmpty() && !OWN_HANDLERS.contains(handler)) {
            throw new LoadError("import", "the worker for Java does not support the error handler " + handler, null);
        }
    }

    Object load(Map<?, ?> job) throws LoadError {
        String context = text(job, "applicationContext");
        String bean = text(job, "beanName");
        boolean named = !context.isEmpty() && !bean.isEmpty();
        String what = named ? "beanName " + bean : "jobClass " + text(job, "jobClass");
        Object made = named ? bean(context, bean) : make("import", what, text(job, "jobClass"));
        boolean dataflow = "DATAFLOW".equals(job.get("jobType"));
        if (dataflow ? !(made instanceof DataflowJob) : !(made instanceof SimpleJob || made instanceof Function)) {
            String wanted = dataflow ? "DataflowJob" : "SimpleJob or a Function";
            throw new LoadError("import", what + " is a " + made.getClass().getName() + ", must be a " + wanted, null);
        }
        return made;
    }

    /** A Function returns the result. Elastic-Job's own jobs have none. */
    @SuppressWarnings("unchecked")
    static Object perform(Object job, ShardingContext context, boolean streaming, Supplier<Boolean> cancelled) {
        if (job instanceof SimpleJob) {
            ((SimpleJob) job).execute(context);
            return null;
        }
        if (job instanceof Function) {
            return ((Function<ShardingContext, Object>) job).apply(context);
        }
        DataflowJob<Object> flow = (DataflowJob<Object>) job;
        List<Object> data = flow.fetchData(context);
        while (data != null && !data.isEmpty()) {
            flow.processData(context, data);
            data = streaming && !cancelled.get() ? flow.fetchData(context) : null;
        }
        return null;
    }

    /** Builds a context before the first job needs it. An error is ignored here: it is raised again for that job. */
    synchronized void warm(String context) {
        try {
            build(context);
        } catch (LoadError error) {
            error.printStackTrace();
        }
    }

    private synchronized Object bean(String context, String name) throws LoadError {
        build(context);
        Object bean = contexts.get(context).get(name);
        if (bean == null) {
            throw new LoadError("context", "applicationContext " + context + " has no bean " + name, null);
        }
        return bean;
    }

    private void build(String context) throws LoadError {
        if (!contexts.containsKey(context)) {
            Object made = make("context", "applicationContext " + context, context);
            if (made instanceof AutoCloseable) {
                closing.add(0, (AutoCloseable) made);
            }
            try {
                contexts.put(context, (Map<?, ?>) (made instanceof Supplier ? ((Supplier<?>) made).get() : made));
            } catch (Exception | LinkageError error) {
                throw new LoadError("context", "applicationContext " + context + " cannot be built: " + error, error);
            }
        }
    }

    private Object make(String reason, String what, String name) throws LoadError {
        try {
            return Class.forName(name.replace(':', '.'), true, classes).getDeclaredConstructor().newInstance();
        } catch (ReflectiveOperationException | LinkageError error) {
            Throwable why = error.getCause() == null ? error : error.getCause();
            throw new LoadError(reason, what + " cannot be created: " + why, why);
        }
    }

    private static String text(Map<?, ?> fields, String name) {
        Object value = fields.get(name);
        return value instanceof String ? (String) value : "";
    }

    /** Closes the contexts, the last built first. */
    void close() throws Exception {
        for (AutoCloseable context : closing) {
            context.close();
        }
    }
}
