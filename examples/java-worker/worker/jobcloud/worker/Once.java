package jobcloud.worker;

import java.util.concurrent.locks.ReentrantLock;

/**
 * A value that is made once. After a failure, the next call tries again. Each value has a lock of its own, because user
 * code makes it and may take for ever.
 */
final class Once<T> {

    interface Maker<T> {

        T make() throws LoadError, InterruptedException;
    }

    private final ReentrantLock lock = new ReentrantLock();
    private T value;

    T get(Maker<T> maker) throws LoadError, InterruptedException {
        lock.lockInterruptibly();
        try {
            if (value == null) {
                value = maker.make();
            }
            return value;
        } finally {
            lock.unlock();
        }
    }
}
