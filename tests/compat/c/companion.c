/*
 * ZooKeeper's C client over a connection string while servers come and go.
 *
 * Called with the connection string. Each line `round N` on standard input comes after `/watched` was set to N: the
 * watch must have told of it, and the session with its ephemeral must be the one from the start. `end` ends.
 */

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zookeeper/zookeeper.h>

#define WAIT_SECONDS 40
#define PATH "/companion-c"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t arrived = PTHREAD_COND_INITIALIZER;
static int changes, others;

static void fail(const char *what, long value) {
    printf("failed: %s (%ld)\n", what, value);
    fflush(stdout);
    _Exit(1);
}

static void watcher(zhandle_t *handle, int type, int state, const char *path, void *context) {
    (void)handle, (void)state, (void)context;
    if (type == ZOO_SESSION_EVENT) {
        return;
    }
    pthread_mutex_lock(&lock);
    if (type == ZOO_CHANGED_EVENT && strcmp(path, "/watched") == 0) {
        changes++;
    } else {
        others++;
    }
    pthread_cond_broadcast(&arrived);
    pthread_mutex_unlock(&lock);
}

/* Calls until it is neither lost nor timed out, and counts the calls. */
#define RETRY(rc, attempts, call)                                                                                  \
    do {                                                                                                           \
        time_t until_ = time(NULL) + WAIT_SECONDS;                                                                 \
        attempts = 0;                                                                                              \
        do {                                                                                                       \
            attempts++;                                                                                            \
            rc = (call);                                                                                           \
        } while ((rc == ZCONNECTIONLOSS || rc == ZOPERATIONTIMEOUT) && time(NULL) < until_);                       \
    } while (0)

static void read_watched(zhandle_t *handle, const char *expected) {
    char data[64];
    int length, rc, attempts;
    RETRY(rc, attempts, (length = sizeof data - 1, zoo_get(handle, "/watched", 1, data, &length, NULL)));
    if (rc != ZOK || length < 0) {
        fail("get of /watched", rc);
    }
    data[length] = 0;
    if (expected != NULL && strcmp(data, expected) != 0) {
        fail("/watched has another value", atol(data));
    }
}

int main(int count, char **arguments) {
    char line[256];
    int rc, attempts;
    if (count != 2) {
        return 2;
    }
    zoo_set_debug_level(0);
    zhandle_t *handle = zookeeper_init(arguments[1], watcher, 15000, NULL, NULL, 0);
    if (handle == NULL) {
        fail("zookeeper_init", 0);
    }
    RETRY(rc, attempts, zoo_create(handle, PATH, "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_EPHEMERAL, NULL, 0));
    if (rc != ZOK && !(rc == ZNODEEXISTS && attempts > 1)) {
        fail("create", rc);
    }
    int64_t session = zoo_client_id(handle)->client_id;
    read_watched(handle, NULL);
    puts("good start");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL && strcmp(line, "end\n") != 0) {
        char *number = line + strlen("round ");
        number[strcspn(number, "\n")] = 0;
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += WAIT_SECONDS;
        pthread_mutex_lock(&lock);
        while (changes == 0 && others == 0 && pthread_cond_timedwait(&arrived, &lock, &until) == 0) {
        }
        int told = changes, odd = others;
        changes = 0;
        pthread_mutex_unlock(&lock);
        if (told != 1 || odd != 0) {
            fail("events that came where one was expected", told + odd);
        }
        read_watched(handle, number);
        struct Stat before, after;
        RETRY(rc, attempts, zoo_exists(handle, PATH, 0, &before));
        if (rc != ZOK) {
            fail("exists of the ephemeral", rc);
        }
        if (before.ephemeralOwner != session || zoo_client_id(handle)->client_id != session) {
            fail("the session is another", 0);
        }
        RETRY(rc, attempts, zoo_set2(handle, PATH, number, (int)strlen(number), -1, &after));
        if (rc != ZOK) {
            fail("set", rc);
        }
        if (after.version <= before.version || after.version > before.version + attempts) {
            fail("versions made", after.version - before.version);
        }
        printf("good %s\n", number);
        fflush(stdout);
    }
    zookeeper_close(handle);
    puts("good end");
    return 0;
}
