package jobcloud.worker;

/** An object that a job names cannot be loaded. `reason` is a cause of the protocol. */
final class LoadError extends Exception {

    private static final long serialVersionUID = 1;
    final String reason;

    LoadError(String reason, String text, Throwable cause) {
        super(text, cause);
        this.reason = reason;
    }
}
