/* A clock for Debian's cron daemon that moves only while the daemon sleeps. See record_cron.py.
 *
 * Loaded with LD_PRELOAD. Environment: CRON_CLOCK_START and CRON_CLOCK_END (seconds since the epoch), CRON_CLOCK_LOG
 * (file). Each start of a command becomes a line "second TAB message" in the log, and the command itself is not run.
 */
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static time_t now;

static time_t setting(const char *name) {
    const char *text = getenv(name);
    return text ? (time_t)atoll(text) : 0;
}

time_t time(time_t *out) {
    if (now == 0) now = setting("CRON_CLOCK_START");
    if (out) *out = now;
    return now;
}

unsigned int sleep(unsigned int seconds) {
    /* All commands of this minute have been logged before the clock goes on. */
    while (waitpid(-1, NULL, 0) > 0) continue;
    now = time(NULL) + seconds;
    if (now > setting("CRON_CLOCK_END")) _exit(0);
    return 0;
}

void __syslog_chk(int priority, int flag, const char *format, ...) {
    char text[4096], line[4200];
    va_list arguments;
    (void)priority;
    (void)flag;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    int length = snprintf(line, sizeof line, "%lld\t%s\n", (long long)time(NULL), text);
    if (!strstr(text, ") CMD (") && !strstr(text, "rror")) return;
    int file = open(getenv("CRON_CLOCK_LOG"), O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (file < 0 || write(file, line, (size_t)length) != length) _exit(9);
    close(file);
    if (strstr(text, ") CMD (")) _exit(0);
}
