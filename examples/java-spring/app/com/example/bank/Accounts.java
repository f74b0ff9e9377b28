package com.example.bank;

import java.util.concurrent.atomic.AtomicInteger;
import javax.annotation.PostConstruct;
import javax.annotation.PreDestroy;
import org.springframework.stereotype.Repository;

/** Opened once per worker, together with its context. */
@Repository
public class Accounts {

    private static final AtomicInteger OPENED = new AtomicInteger();
    private final AtomicInteger uses = new AtomicInteger();

    @PostConstruct
    public void open() {
        OPENED.incrementAndGet();
    }

    public String use() {
        return "accounts " + OPENED.get() + ", use " + uses.incrementAndGet();
    }

    @PreDestroy
    public void close() {
        System.err.println("the accounts are closed");
    }
}
