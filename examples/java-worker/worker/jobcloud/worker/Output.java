package jobcloud.worker;

import java.io.File;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.io.PrintStream;
import java.io.UnsupportedEncodingException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;

/** System.out or System.err. Output of a shard's thread goes to the shard's log; other output stays. */
final class Output extends OutputStream {

    private static final int LOG_BYTES = 10 << 20;
    private final InheritableThreadLocal<Log> logs = new InheritableThreadLocal<>();
    private final PrintStream before;

    Output(PrintStream before) {
        this.before = before;
    }

    /** A stream that is never closed, because all shards share it. */
    PrintStream stream() {
        try {
            return new PrintStream(this, true, "UTF-8") {
                @Override
                public void close() {
                    flush();
                }
            };
        } catch (UnsupportedEncodingException error) {
            throw new IllegalStateException(error);
        }
    }

    /** Sends the output of this thread, and of threads that it starts, to a file. */
    void open(File file) {
        logs.set(new Log(file));
    }

    /** The log of this thread, or null. */
    Log log() {
        return logs.get();
    }

    /** Sends the output of this thread to a log of another thread, or to none if it is null. */
    void join(Log log) {
        if (log == null) {
            logs.remove();
        } else {
            logs.set(log);
        }
    }

    /** Ends the log of this thread. Later output of threads that the shard has started goes to the worker's own stream. */
    void leave() {
        Log log = logs.get();
        logs.remove();
        if (log != null) {
            log.end();
        }
    }

    @Override
    public void write(int b) {
        write(new byte[] {(byte) b}, 0, 1);
    }

    @Override
    public void write(byte[] bytes, int from, int count) {
        Log log = logs.get();
        if (log == null || !log.write(bytes, from, count)) {
            before.write(bytes, from, count);
        }
    }

    /** The name of the log folder, the same as in jobcloud.executor.output.task_folder. */
    static String folder(String task) {
        StringBuilder name = new StringBuilder();
        for (byte b : task.getBytes(StandardCharsets.UTF_8)) {
            char c = (char) (b & 0xff);
            boolean plain = c < 128 && (Character.isLetterOrDigit(c) || "._@=-".indexOf(c) >= 0);
            name.append(plain && !(c == '.' && name.length() == 0) ? String.valueOf(c) : String.format("%%%02X", (int) c));
        }
        if (name.length() <= 200) {
            return name.toString();
        }
        try {
            byte[] hash = MessageDigest.getInstance("SHA-256").digest(task.getBytes(StandardCharsets.UTF_8));
            StringBuilder tail = new StringBuilder();
            for (int i = 0; i < 8; i++) {
                tail.append(String.format("%02x", hash[i]));
            }
            return name.substring(0, 183) + "-" + tail;
        } catch (NoSuchAlgorithmException error) {
            throw new IllegalStateException(error);
        }
    }

    /**
     * A file and its predecessor. The name is the offset of the file's first byte in the stream, the same as in
     * jobcloud.executor.output. A full disk does not make the job fail.
     */
    static final class Log {

        private final File file;
        private FileOutputStream out;
        private long before;
        private long size;
        private boolean ended;

        Log(File file) {
            this.file = file;
        }

        /** False if the log has ended. */
        synchronized boolean write(byte[] bytes, int from, int count) {
            if (ended) {
                return false;
            }
            try {
                while (count > 0) {
                    if (out == null) {
                        open();
                    }
                    if (size >= LOG_BYTES) {
                        rotate();
                    }
                    int some = (int) Math.min(count, LOG_BYTES - size);
                    out.write(bytes, from, some);
                    size += some;
                    from += some;
                    count -= some;
                }
            } catch (IOException full) {
                return true;
            }
            return true;
        }

        synchronized void end() {
            ended = true;
            close();
        }

        private void open() throws IOException {
            Files.createDirectories(file.getParentFile().toPath());
            before = 0;
            for (String name : file.getParentFile().list()) {
                if (name.matches(file.getName() + "\\.[0-9]{1,18}")) {
                    before = Math.max(before, Long.parseLong(name.substring(file.getName().length() + 1)));
                }
            }
            out = new FileOutputStream(file, true);
            size = file.length();
        }

        private void rotate() throws IOException {
            close();
            long previous = before;
            Files.move(file.toPath(), new File(file.getPath() + "." + (before + size)).toPath());
            if (previous > 0) {
                Files.delete(new File(file.getPath() + "." + previous).toPath());
            }
            open();
        }

        private void close() {
            try {
                if (out != null) {
                    out.close();
                }
            } catch (IOException full) {
                return;
            } finally {
                out = null;
            }
        }
    }
}
