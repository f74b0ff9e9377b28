package com.example.shop;

import com.dangdang.ddframe.job.api.ShardingContext;
import com.dangdang.ddframe.job.api.simple.SimpleJob;
import java.util.Collections;
import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Supplier;

/** applicationContext "com.example.shop.Shop": created once per worker. */
public class Shop implements Supplier<Map<String, SimpleJob>>, AutoCloseable {

    private static final AtomicInteger MADE = new AtomicInteger();

    @Override
    public Map<String, SimpleJob> get() {
        int number = MADE.incrementAndGet();
        AtomicInteger runs = new AtomicInteger();
        return Collections.singletonMap("counting", (ShardingContext context) ->
                System.out.println("context " + number + ", run " + runs.incrementAndGet()));
    }

    @Override
    public void close() {
        System.err.println("the shop is closed");
    }
}
