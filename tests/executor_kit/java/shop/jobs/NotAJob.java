package shop.jobs;

public class NotAJob {
}
