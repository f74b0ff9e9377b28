package jobcloud.worker;

import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.util.ArrayDeque;
import java.util.Arrays;
import java.util.Collection;
import java.util.Deque;
import java.util.Map;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.Supplier;

/**
 * The contexts of an app. A context is an XML file of Spring in the class path, or a class that is a Map of beans by
 * name, or a Supplier of one. The first shard that needs a context builds it, and it exists until the worker ends.
 */
final class Contexts {

    private static final String SPRING = "org.springframework.context.support.ClassPathXmlApplicationContext";
    private static final int MOST_NAMES = 500;

    private interface Beans {

        /** A bean, or null if there is none of this name. */
        Object get(String name) throws Exception;

        Collection<?> names() throws Exception;
    }

    private final AppClasses classes;
    private final Map<String, Once<Beans>> contexts = new ConcurrentHashMap<>();
    private final Deque<AutoCloseable> closing = new ArrayDeque<>();

    Contexts(AppClasses classes) {
        this.classes = classes;
    }

    Object bean(String context, String name) throws LoadError, InterruptedException {
        Beans beans = build(context);
        Object bean;
        try {
            bean = beans.get(name);
            if (bean == null) {
                String names = String.join(", ", texts(beans.names()));
                names = names.length() <= MOST_NAMES ? names : names.substring(0, MOST_NAMES) + "…";
                throw new LoadError("context", "applicationContext " + context + " has no bean " + name
                        + ", only: " + (names.isEmpty() ? "nothing" : names), null);
            }
        } catch (InvocationTargetException error) {
            throw new LoadError("context", "bean " + name + " cannot be created: " + error.getCause(), error.getCause());
        } catch (LoadError error) {
            throw error;
        } catch (Exception | LinkageError error) {
            throw new LoadError("context", "bean " + name + " cannot be created: " + error, error);
        }
        return bean;
    }

    /** Builds a context before the first job needs it. An error is only logged: that job tries again. */
    void warm(String context) {
        try {
            build(context);
        } catch (LoadError | InterruptedException error) {
            error.printStackTrace();
        }
    }

    /** Closes the contexts, the last built first. */
    void close() {
        AutoCloseable[] all;
        synchronized (closing) {
            all = closing.toArray(new AutoCloseable[0]);
        }
        for (AutoCloseable context : all) {
            try {
                context.close();
            } catch (Exception error) {
                error.printStackTrace();
            }
        }
    }

    private Beans build(String name) throws LoadError, InterruptedException {
        return contexts.computeIfAbsent(name, any -> new Once<>())
                .get(() -> name.endsWith(".xml") ? spring(name) : own(name));
    }

    private Beans own(String name) throws LoadError {
        String what = "applicationContext " + name;
        Object made = classes.create("context", what, name);
        closeLater(made);
        Object beans;
        try {
            beans = made instanceof Supplier ? ((Supplier<?>) made).get() : made;
        } catch (Exception | LinkageError error) {
            throw new LoadError("context", what + " cannot be built: " + error, error);
        }
        if (!(beans instanceof Map)) {
            String kind = beans == null ? "null" : beans.getClass().getName();
            throw new LoadError("context", what + " is " + kind + ", must be a Map of beans or a Supplier of one", null);
        }
        Map<?, ?> map = (Map<?, ?>) beans;
        return new Beans() {
            @Override
            public Object get(String bean) {
                return map.get(bean);
            }

            @Override
            public Collection<?> names() {
                return map.keySet();
            }
        };
    }

    /** The app has Spring in its JARs, so it is only called by reflection. */
    private Beans spring(String name) throws LoadError {
        Object made = null;
        Method get;
        Method has;
        Method names;
        try {
            Class<?> kind = Class.forName(SPRING, true, classes.loader());
            get = kind.getMethod("getBean", String.class);
            has = kind.getMethod("containsBean", String.class);
            names = kind.getMethod("getBeanDefinitionNames");
            made = kind.getConstructor(String.class).newInstance(name);
        } catch (ClassNotFoundException error) {
            String why = "the JARs of the app lack Spring (" + SPRING + ")";
            throw new LoadError("context", "applicationContext " + name + " cannot be built: " + why, error);
        } catch (InvocationTargetException error) {
            Throwable why = error.getCause();
            throw new LoadError("context", "applicationContext " + name + " cannot be built: " + why, why);
        } catch (ReflectiveOperationException | LinkageError error) {
            throw new LoadError("context", "applicationContext " + name + " cannot be built: " + error, error);
        }
        closeLater(made);
        Object context = made;
        return new Beans() {
            @Override
            public Object get(String bean) throws Exception {
                return Boolean.TRUE.equals(has.invoke(context, bean)) ? get.invoke(context, bean) : null;
            }

            @Override
            public Collection<?> names() throws Exception {
                return Arrays.asList((Object[]) names.invoke(context));
            }
        };
    }

    private void closeLater(Object made) {
        if (made instanceof AutoCloseable) {
            synchronized (closing) {
                closing.addFirst((AutoCloseable) made);
            }
        }
    }

    private static TreeSet<String> texts(Collection<?> names) {
        TreeSet<String> texts = new TreeSet<>();
        names.forEach(name -> texts.add(String.valueOf(name)));
        return texts;
    }
}
