package shop.jobs;

import java.util.Map;
import java.util.function.Supplier;

public class broken_context implements Supplier<Map<String, Object>> {
    @Override
    public Map<String, Object> get() {
        throw new IllegalStateException("no database");
    }
}
