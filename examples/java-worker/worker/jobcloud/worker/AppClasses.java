package jobcloud.worker;

import java.io.File;
import java.lang.reflect.Constructor;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Modifier;
import java.net.MalformedURLException;
import java.net.URL;
import java.net.URLClassLoader;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/** The classes of an app: those of its directory, of the JARs in it, and of the JARs in its `lib`, in this order. */
final class AppClasses {

    private final ClassLoader loader;

    AppClasses(File directory) throws MalformedURLException {
        List<URL> found = new ArrayList<>();
        found.add(directory.toURI().toURL());
        for (File folder : new File[] {directory, new File(directory, "lib")}) {
            File[] jars = folder.listFiles((in, name) -> name.endsWith(".jar"));
            jars = jars == null ? new File[0] : jars;
            Arrays.sort(jars);
            for (File jar : jars) {
                found.add(jar.toURI().toURL());
            }
        }
        loader = new URLClassLoader(found.toArray(new URL[0]), AppClasses.class.getClassLoader());
    }

    ClassLoader loader() {
        return loader;
    }

    /** `name` may have a colon in place of the last dot, and a dot in place of the `$` of a nested class. */
    private Class<?> find(String name) throws ClassNotFoundException {
        String wanted = name.replace(':', '.');
        try {
            return Class.forName(wanted, true, loader);
        } catch (ClassNotFoundException missing) {
            for (int dot = wanted.lastIndexOf('.'); dot > 0; dot = wanted.lastIndexOf('.')) {
                wanted = wanted.substring(0, dot) + "$" + wanted.substring(dot + 1);
                try {
                    return Class.forName(wanted, true, loader);
                } catch (ClassNotFoundException notNested) {
                    continue;
                }
            }
            throw missing;
        }
    }

    /**
     * A new instance, made without arguments, or with zeros if a constructor takes exactly these `numbers`. `what` names it
     * in errors, and `reason` is their cause.
     */
    Object create(String reason, String what, String name, Class<?>... numbers) throws LoadError {
        try {
            Class<?> found = find(name);
            if (found.isMemberClass() && !Modifier.isStatic(found.getModifiers())) {
                throw new LoadError(reason, what + " is an inner class of " + found.getDeclaringClass().getName()
                        + "; declare it static", null);
            }
            for (Constructor<?> constructor : found.getDeclaredConstructors()) {
                if (numbers.length > 0 && Arrays.equals(constructor.getParameterTypes(), numbers)) {
                    Object[] zeros = new Object[numbers.length];
                    Arrays.fill(zeros, 0L);
                    return constructor.newInstance(zeros);
                }
            }
            return found.getDeclaredConstructor().newInstance();
        } catch (InvocationTargetException error) {
            throw new LoadError(reason, what + " cannot be created: " + error.getCause(), error.getCause());
        } catch (ReflectiveOperationException | LinkageError error) {
            Throwable why = error.getCause() == null ? error : error.getCause();
            throw new LoadError(reason, what + " cannot be created: " + why, why);
        }
    }
}
