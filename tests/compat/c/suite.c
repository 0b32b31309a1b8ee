/*
 * ZooKeeper's C client against one server: each synchronous call, its asynchronous twin, multis, watchers, ACLs,
 * authentication and sessions.
 *
 * Called with the server's address. The lines "@restart" and "@kill" on standard output ask whoever started this to
 * restart the server and to answer with one line.
 */

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <zookeeper/zookeeper.h>

#define WAIT_SECONDS 20
#define EVENTS_MAX 256
#define PATH_BYTES 256

static const char *program, *hosts;
static char failure[1024];
static int tests_passed, tests_failed, next_top;

/* A failed check ends the test it is in. */
#define CHECK(condition, ...)                                                                                      \
    do {                                                                                                           \
        if (!(condition)) {                                                                                        \
            int at = snprintf(failure, sizeof failure, "line %d: %s: ", __LINE__, #condition);                     \
            snprintf(failure + at, sizeof failure - (size_t)at, __VA_ARGS__);                                      \
            return;                                                                                                \
        }                                                                                                          \
    } while (0)
#define OK(call)                                                                                                   \
    do {                                                                                                           \
        int rc_ = (call);                                                                                          \
        CHECK(rc_ == ZOK, "%s returned %s", #call, zerror(rc_));                                                   \
    } while (0)
#define FAILS(code, call)                                                                                          \
    do {                                                                                                           \
        int rc_ = (call);                                                                                          \
        CHECK(rc_ == (code), "%s returned %s instead of %s", #call, zerror(rc_), zerror(code));                    \
    } while (0)

/* What a client is told, in the order it comes. */
struct event {
    int type, state;
    char path[PATH_BYTES];
};
struct client {
    zhandle_t *handle;
    pthread_mutex_t lock;
    pthread_cond_t arrived;
    struct event events[EVENTS_MAX];
    int event_count, event_next;
    int connected, expired, auth_failed, disconnects;
};

static void deadline(struct timespec *at) {
    clock_gettime(CLOCK_REALTIME, at);
    at->tv_sec += WAIT_SECONDS;
}

static void watcher(zhandle_t *handle, int type, int state, const char *path, void *context) {
    (void)handle;
    struct client *client = context;
    pthread_mutex_lock(&client->lock);
    if (type == ZOO_SESSION_EVENT) {
        client->disconnects += client->connected && state != ZOO_CONNECTED_STATE;
        client->connected = state == ZOO_CONNECTED_STATE;
        client->expired |= state == ZOO_EXPIRED_SESSION_STATE;
        client->auth_failed |= state == ZOO_AUTH_FAILED_STATE;
    } else if (client->event_count < EVENTS_MAX) {
        struct event *event = &client->events[client->event_count++];
        event->type = type;
        event->state = state;
        snprintf(event->path, sizeof event->path, "%s", path);
    }
    pthread_cond_broadcast(&client->arrived);
    pthread_mutex_unlock(&client->lock);
}

/* Waits until *flag is at least `wanted`; 0 when it took too long. */
static int await(struct client *client, const int *flag, int wanted) {
    struct timespec at;
    deadline(&at);
    pthread_mutex_lock(&client->lock);
    int late = 0;
    while (*flag < wanted && late == 0)
        late = pthread_cond_timedwait(&client->arrived, &client->lock, &at);
    int good = *flag >= wanted;
    pthread_mutex_unlock(&client->lock);
    return good;
}

/* The next event must be this one. */
static int expect(struct client *client, int type, const char *path) {
    if (!await(client, &client->event_count, client->event_next + 1))
        return 0;
    struct event *event = &client->events[client->event_next++];
    return event->type == type && event->state == ZOO_CONNECTED_STATE && strcmp(event->path, path) == 0;
}

static struct client *open_client(const clientid_t *id, int timeout_ms) {
    struct client *client = calloc(1, sizeof *client);
    pthread_mutex_init(&client->lock, NULL);
    pthread_cond_init(&client->arrived, NULL);
    client->handle = zookeeper_init(hosts, watcher, timeout_ms, id, client, 0);
    if (client->handle == NULL) {
        fprintf(stderr, "zookeeper_init: %s\n", strerror(errno));
        exit(1);
    }
    return client;
}

static struct client *connect_client(void) {
    struct client *client = open_client(NULL, 20000);
    if (!await(client, &client->connected, 1)) {
        fprintf(stderr, "no connection\n");
        exit(1);
    }
    return client;
}

static void close_client(struct client *client) {
    zookeeper_close(client->handle);
    pthread_mutex_destroy(&client->lock);
    pthread_cond_destroy(&client->arrived);
    free(client);
}

static int same_stat(const struct Stat *a, const struct Stat *b) {
    return a->czxid == b->czxid && a->mzxid == b->mzxid && a->ctime == b->ctime && a->mtime == b->mtime && a->version == b->version &&
           a->cversion == b->cversion && a->aversion == b->aversion && a->ephemeralOwner == b->ephemeralOwner &&
           a->dataLength == b->dataLength && a->numChildren == b->numChildren && a->pzxid == b->pzxid;
}

static const char *join(const char *top, const char *name) {
    static char ring[16][PATH_BYTES];
    static int at;
    char *out = ring[at++ % 16];
    snprintf(out, PATH_BYTES, "%s%s", top, name);
    return out;
}

static void make_top(struct client *client, char *top) {
    snprintf(top, PATH_BYTES, "/c%d", next_top++);
    zoo_create(client->handle, top, "top", 3, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0);
}

static int restart(const char *how) {
    char line[16];
    printf("%s\n", how);
    fflush(stdout);
    return fgets(line, sizeof line, stdin) != NULL;
}

/* -- synchronous calls ------------------------------------------------------------------------------------------- */

static void synchronous(struct client *c) {
    char top[PATH_BYTES], name[PATH_BYTES], data[64];
    make_top(c, top);
    zhandle_t *zh = c->handle;
    struct Stat stat, second;
    OK(zoo_create(zh, join(top, "/a"), "one", 3, &ZOO_OPEN_ACL_UNSAFE, 0, name, sizeof name));
    CHECK(strcmp(name, join(top, "/a")) == 0, "%s", name);
    OK(zoo_create(zh, join(top, "/s-"), NULL, -1, &ZOO_OPEN_ACL_UNSAFE, ZOO_SEQUENCE, name, sizeof name));
    CHECK(strcmp(name, join(top, "/s-0000000001")) == 0, "%s", name);
    OK(zoo_create(zh, join(top, "/e-"), "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_EPHEMERAL | ZOO_SEQUENCE, name, sizeof name));
    CHECK(strcmp(name, join(top, "/e-0000000002")) == 0, "%s", name);
    OK(zoo_create2(zh, join(top, "/two"), "12345", 5, &ZOO_OPEN_ACL_UNSAFE, ZOO_EPHEMERAL, name, sizeof name, &stat));
    CHECK(stat.dataLength == 5 && stat.ephemeralOwner == zoo_client_id(zh)->client_id, "stat of %s", name);
    OK(zoo_exists(zh, join(top, "/two"), 0, &second));
    CHECK(same_stat(&stat, &second), "create2 and exists give one stat");
    FAILS(ZNODEEXISTS, zoo_create(zh, join(top, "/a"), "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0));
    FAILS(ZNONODE, zoo_create(zh, join(top, "/no/x"), "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0));
    FAILS(ZNOCHILDRENFOREPHEMERALS, zoo_create(zh, join(top, "/two/x"), "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0));
    int length = sizeof data;
    OK(zoo_get(zh, join(top, "/a"), 0, data, &length, &stat));
    CHECK(length == 3 && memcmp(data, "one", 3) == 0 && stat.version == 0, "length %d", length);
    length = sizeof data;
    OK(zoo_get(zh, join(top, "/s-0000000001"), 0, data, &length, NULL));
    CHECK(length == -1, "null data came back with length %d", length);
    length = sizeof data;
    OK(zoo_get(zh, join(top, "/e-0000000002"), 0, data, &length, NULL));
    CHECK(length == 0, "empty data came back with length %d", length);
    OK(zoo_set(zh, join(top, "/a"), "two", 3, 0));
    OK(zoo_set2(zh, join(top, "/a"), "three", 5, 1, &stat));
    CHECK(stat.version == 2 && stat.dataLength == 5, "version %d", stat.version);
    FAILS(ZBADVERSION, zoo_set(zh, join(top, "/a"), "x", 1, 1));
    FAILS(ZNONODE, zoo_set(zh, join(top, "/no"), "x", 1, -1));
    FAILS(ZNONODE, zoo_get(zh, join(top, "/no"), 0, data, &length, NULL));
    FAILS(ZNONODE, zoo_exists(zh, join(top, "/no"), 0, &stat));
    struct String_vector children;
    OK(zoo_get_children(zh, top, 0, &children));
    CHECK(children.count == 4, "%d children", children.count);
    deallocate_String_vector(&children);
    OK(zoo_get_children2(zh, top, 0, &children, &stat));
    CHECK(children.count == 4 && stat.numChildren == 4 && stat.cversion == 4, "%d children", children.count);
    deallocate_String_vector(&children);
    OK(zoo_create(zh, join(top, "/cont"), "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_CONTAINER, NULL, 0));
    OK(zoo_create2(zh, join(top, "/cont2"), "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_CONTAINER, NULL, 0, &stat));
    CHECK(stat.ephemeralOwner == 0, "a container has no owner");
    OK(zoo_create_ttl(zh, join(top, "/ttl"), "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_PERSISTENT_WITH_TTL, 600000, NULL, 0));
    OK(zoo_create2_ttl(zh, join(top, "/ttl"), "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_PERSISTENT_SEQUENTIAL_WITH_TTL, 600000, name, sizeof name, &stat));
    CHECK(strcmp(name, join(top, "/ttl0000000007")) == 0, "%s", name);
    FAILS(ZNOTEMPTY, zoo_delete(zh, top, -1));
    FAILS(ZBADVERSION, zoo_delete(zh, join(top, "/a"), 0));
    OK(zoo_delete(zh, join(top, "/a"), 2));
    FAILS(ZNONODE, zoo_delete(zh, join(top, "/a"), -1));
    FAILS(ZBADARGUMENTS, zoo_delete(zh, "/zookeeper", -1));
}

/* -- asynchronous calls ------------------------------------------------------------------------------------------ */

struct answer {
    pthread_mutex_t lock;
    pthread_cond_t arrived;
    int done, rc, count;
    char text[PATH_BYTES];
    struct Stat stat;
};

static void finish(struct answer *answer, int rc, const char *text, const struct Stat *stat, int count) {
    pthread_mutex_lock(&answer->lock);
    answer->rc = rc;
    snprintf(answer->text, sizeof answer->text, "%s", text ? text : "");
    if (stat)
        answer->stat = *stat;
    answer->count = count;
    answer->done++;
    pthread_cond_broadcast(&answer->arrived);
    pthread_mutex_unlock(&answer->lock);
}

static int answered(struct answer *answer, int times) {
    struct timespec at;
    deadline(&at);
    pthread_mutex_lock(&answer->lock);
    int late = 0;
    while (answer->done < times && late == 0)
        late = pthread_cond_timedwait(&answer->arrived, &answer->lock, &at);
    int rc = answer->done < times ? ZOPERATIONTIMEOUT : answer->rc;
    if (answer->done >= times)
        answer->done = 0;
    pthread_mutex_unlock(&answer->lock);
    return rc;
}

static void on_void(int rc, const void *data) {
    finish((struct answer *)data, rc, NULL, NULL, 0);
}
static void on_string(int rc, const char *value, const void *data) {
    finish((struct answer *)data, rc, value, NULL, 0);
}
static void on_string_stat(int rc, const char *value, const struct Stat *stat, const void *data) {
    finish((struct answer *)data, rc, value, stat, 0);
}
static void on_stat(int rc, const struct Stat *stat, const void *data) {
    finish((struct answer *)data, rc, NULL, stat, 0);
}
static void on_data(int rc, const char *value, int length, const struct Stat *stat, const void *data) {
    char text[PATH_BYTES] = "";
    if (rc == ZOK && length > 0)
        snprintf(text, sizeof text, "%.*s", length, value);
    finish((struct answer *)data, rc, text, stat, length);
}
static void on_strings(int rc, const struct String_vector *strings, const void *data) {
    finish((struct answer *)data, rc, NULL, NULL, strings ? strings->count : 0);
}
static void on_strings_stat(int rc, const struct String_vector *strings, const struct Stat *stat, const void *data) {
    finish((struct answer *)data, rc, NULL, stat, strings ? strings->count : 0);
}
static void on_acl(int rc, struct ACL_vector *acl, struct Stat *stat, const void *data) {
    finish((struct answer *)data, rc, acl && acl->count ? acl->data[0].id.scheme : "", stat, acl ? acl->count : 0);
}

static void asynchronous(struct client *c) {
    char top[PATH_BYTES];
    make_top(c, top);
    zhandle_t *zh = c->handle;
    struct answer a = {.done = 0};
    pthread_mutex_init(&a.lock, NULL);
    pthread_cond_init(&a.arrived, NULL);
    OK(zoo_acreate(zh, join(top, "/a"), "one", 3, &ZOO_OPEN_ACL_UNSAFE, 0, on_string, &a));
    OK(answered(&a, 1));
    CHECK(strcmp(a.text, join(top, "/a")) == 0, "%s", a.text);
    OK(zoo_acreate(zh, join(top, "/a"), "one", 3, &ZOO_OPEN_ACL_UNSAFE, 0, on_string, &a));
    FAILS(ZNODEEXISTS, answered(&a, 1));
    OK(zoo_acreate2(zh, join(top, "/s-"), "four", 4, &ZOO_OPEN_ACL_UNSAFE, ZOO_SEQUENCE, on_string_stat, &a));
    OK(answered(&a, 1));
    CHECK(strcmp(a.text, join(top, "/s-0000000001")) == 0 && a.stat.dataLength == 4, "%s", a.text);
    OK(zoo_aexists(zh, join(top, "/a"), 0, on_stat, &a));
    OK(answered(&a, 1));
    OK(zoo_aexists(zh, join(top, "/no"), 0, on_stat, &a));
    FAILS(ZNONODE, answered(&a, 1));
    OK(zoo_aget(zh, join(top, "/a"), 0, on_data, &a));
    OK(answered(&a, 1));
    CHECK(strcmp(a.text, "one") == 0, "%s", a.text);
    OK(zoo_aset(zh, join(top, "/a"), "two", 3, 0, on_stat, &a));
    OK(answered(&a, 1));
    CHECK(a.stat.version == 1, "version %d", a.stat.version);
    OK(zoo_aget_children(zh, top, 0, on_strings, &a));
    OK(answered(&a, 1));
    CHECK(a.count == 2, "%d children", a.count);
    OK(zoo_aget_children2(zh, top, 0, on_strings_stat, &a));
    OK(answered(&a, 1));
    CHECK(a.count == 2 && a.stat.numChildren == 2, "%d children", a.count);
    OK(zoo_aget_acl(zh, join(top, "/a"), on_acl, &a));
    OK(answered(&a, 1));
    CHECK(a.count == 1 && strcmp(a.text, "world") == 0, "%s", a.text);
    OK(zoo_aset_acl(zh, join(top, "/a"), 0, &ZOO_READ_ACL_UNSAFE, on_void, &a));
    OK(answered(&a, 1));
    OK(zoo_async(zh, top, on_string, &a));
    OK(answered(&a, 1));
    CHECK(strcmp(a.text, top) == 0, "sync echoes %s", a.text);
    OK(zoo_agetconfig(zh, 0, on_data, &a));
    OK(answered(&a, 1));
    CHECK(a.count == 0, "a standalone server has no configuration, %d bytes", a.count);
    OK(zoo_adelete(zh, join(top, "/a"), 0, on_void, &a));
    FAILS(ZBADVERSION, answered(&a, 1));
    OK(zoo_adelete(zh, join(top, "/a"), 1, on_void, &a));
    OK(answered(&a, 1));
    for (int i = 0; i < 500; i++) {
        char name[32];
        snprintf(name, sizeof name, "/n%d", i);
        OK(zoo_acreate(zh, join(top, name), "x", 1, &ZOO_OPEN_ACL_UNSAFE, 0, on_string, &a));
        OK(zoo_aget(zh, join(top, name), 0, on_data, &a));
    }
    OK(answered(&a, 1000));
    CHECK(strcmp(a.text, "x") == 0, "the last answer");
    pthread_mutex_destroy(&a.lock);
    pthread_cond_destroy(&a.arrived);
}

/* -- multis ------------------------------------------------------------------------------------------------------ */

static void multis(struct client *c) {
    char top[PATH_BYTES], name[PATH_BYTES], again[PATH_BYTES];
    make_top(c, top);
    zhandle_t *zh = c->handle;
    struct Stat stat;
    zoo_op_t ops[6];
    zoo_op_result_t results[6];
    zoo_create_op_init(&ops[0], join(top, "/a"), "one", 3, &ZOO_OPEN_ACL_UNSAFE, 0, name, sizeof name);
    zoo_create_op_init(&ops[1], join(top, "/s-"), "two", 3, &ZOO_OPEN_ACL_UNSAFE, ZOO_SEQUENCE, again, sizeof again);
    zoo_set_op_init(&ops[2], join(top, "/a"), "three", 5, 0, &stat);
    zoo_check_op_init(&ops[3], join(top, "/a"), 1);
    zoo_create_op_init(&ops[4], join(top, "/b"), "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_EPHEMERAL, NULL, 0);
    zoo_delete_op_init(&ops[5], join(top, "/b"), 0);
    OK(zoo_multi(zh, 6, ops, results));
    for (int i = 0; i < 6; i++)
        CHECK(results[i].err == ZOK, "operation %d: %s", i, zerror(results[i].err));
    CHECK(strcmp(name, join(top, "/a")) == 0 && strcmp(again, join(top, "/s-0000000001")) == 0, "%s %s", name, again);
    CHECK(stat.version == 1 && stat.dataLength == 5, "the stat in a multi");
    zoo_set_op_init(&ops[0], join(top, "/a"), "x", 1, -1, NULL);
    zoo_check_op_init(&ops[1], join(top, "/a"), 77);
    zoo_delete_op_init(&ops[2], join(top, "/a"), -1);
    FAILS(ZBADVERSION, zoo_multi(zh, 3, ops, results));
    CHECK(results[0].err == ZOK && results[1].err == ZBADVERSION && results[2].err == ZRUNTIMEINCONSISTENCY, "%d %d %d", results[0].err,
          results[1].err, results[2].err);
    OK(zoo_exists(zh, join(top, "/a"), 0, &stat));
    CHECK(stat.version == 1, "a failed multi changes nothing");
    struct answer a = {.done = 0};
    pthread_mutex_init(&a.lock, NULL);
    pthread_cond_init(&a.arrived, NULL);
    zoo_create_op_init(&ops[0], join(top, "/m"), "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0);
    zoo_delete_op_init(&ops[1], join(top, "/m"), 0);
    OK(zoo_amulti(zh, 2, ops, results, on_void, &a));
    OK(answered(&a, 1));
    CHECK(results[0].err == ZOK && results[1].err == ZOK, "%d %d", results[0].err, results[1].err);
    zoo_delete_op_init(&ops[1], join(top, "/none"), 0);
    OK(zoo_amulti(zh, 2, ops, results, on_void, &a));
    FAILS(ZNONODE, answered(&a, 1));
    CHECK(results[0].err == ZOK && results[1].err == ZNONODE, "%d %d", results[0].err, results[1].err);
    pthread_mutex_destroy(&a.lock);
    pthread_cond_destroy(&a.arrived);
}

/* -- watches ----------------------------------------------------------------------------------------------------- */

static void watches(struct client *c) {
    char top[PATH_BYTES], data[16];
    make_top(c, top);
    struct client *other = connect_client();
    zhandle_t *zh = c->handle, *oh = other->handle;
    struct Stat stat;
    struct String_vector children;
    FAILS(ZNONODE, zoo_exists(zh, join(top, "/n"), 1, &stat));
    OK(zoo_create(oh, join(top, "/n"), "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0));
    CHECK(expect(c, ZOO_CREATED_EVENT, join(top, "/n")), "created");
    int length = sizeof data;
    OK(zoo_get(zh, join(top, "/n"), 1, data, &length, NULL));
    OK(zoo_set(oh, join(top, "/n"), "1", 1, -1));
    CHECK(expect(c, ZOO_CHANGED_EVENT, join(top, "/n")), "changed");
    OK(zoo_wget_children(zh, top, watcher, c, &children));
    deallocate_String_vector(&children);
    OK(zoo_create(oh, join(top, "/m"), "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0));
    CHECK(expect(c, ZOO_CHILD_EVENT, top), "child");
    length = sizeof data;
    OK(zoo_wget(zh, join(top, "/n"), watcher, c, data, &length, NULL));
    OK(zoo_wget_children2(zh, top, watcher, c, &children, &stat));
    deallocate_String_vector(&children);
    OK(zoo_delete(oh, join(top, "/n"), -1));
    CHECK(expect(c, ZOO_DELETED_EVENT, join(top, "/n")), "deleted");
    CHECK(expect(c, ZOO_CHILD_EVENT, top), "child of the deletion");
    OK(zoo_wexists(zh, join(top, "/m"), watcher, c, &stat));
    OK(zoo_remove_watches(zh, join(top, "/m"), ZWATCHTYPE_DATA, watcher, c, 0));
    FAILS(ZNOWATCHER, zoo_remove_watches(zh, join(top, "/m"), ZWATCHTYPE_DATA, watcher, c, 0));
    OK(zoo_wexists(zh, join(top, "/m"), watcher, c, &stat));
    OK(zoo_remove_all_watches(zh, join(top, "/m"), ZWATCHTYPE_ANY, 0));
    OK(zoo_set(oh, join(top, "/m"), "1", 1, -1));
    OK(zoo_exists(zh, top, 0, &stat));
    close_client(other);
    for (; c->event_next < c->event_count; c->event_next++)
        CHECK(c->events[c->event_next].type != ZOO_CHANGED_EVENT, "a removed watch fired");
}

/* -- ACLs -------------------------------------------------------------------------------------------------------- */

static void acls(struct client *c) {
    char top[PATH_BYTES], data[16];
    make_top(c, top);
    struct client *stranger = connect_client();
    zhandle_t *zh = c->handle, *sh = stranger->handle;
    struct answer a = {.done = 0};
    pthread_mutex_init(&a.lock, NULL);
    pthread_cond_init(&a.arrived, NULL);
    OK(zoo_add_auth(zh, "digest", "user:secret", 11, on_void, &a));
    OK(answered(&a, 1));
    OK(zoo_create(zh, join(top, "/mine"), "x", 1, &ZOO_CREATOR_ALL_ACL, 0, NULL, 0));
    struct ACL_vector acl;
    struct Stat stat;
    OK(zoo_get_acl(zh, join(top, "/mine"), &acl, &stat));
    CHECK(acl.count == 1 && acl.data[0].perms == ZOO_PERM_ALL && strcmp(acl.data[0].id.scheme, "digest") == 0 &&
              strncmp(acl.data[0].id.id, "user:", 5) == 0, "acl");
    deallocate_ACL_vector(&acl);
    int length = sizeof data;
    FAILS(ZNOAUTH, zoo_get(sh, join(top, "/mine"), 0, data, &length, NULL));
    FAILS(ZNOAUTH, zoo_set(sh, join(top, "/mine"), "y", 1, -1));
    FAILS(ZNOAUTH, zoo_create(sh, join(top, "/mine/x"), "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0));
    FAILS(ZINVALIDACL, zoo_create(sh, join(top, "/y"), "", 0, &ZOO_CREATOR_ALL_ACL, 0, NULL, 0));
    FAILS(ZBADVERSION, zoo_set_acl(zh, join(top, "/mine"), 3, &ZOO_READ_ACL_UNSAFE));
    OK(zoo_set_acl(zh, join(top, "/mine"), 0, &ZOO_READ_ACL_UNSAFE));
    OK(zoo_get(sh, join(top, "/mine"), 0, data, &length, &stat));
    CHECK(stat.aversion == 1, "aversion %d", stat.aversion);
    zoo_add_auth(sh, "unknown", "x", 1, on_void, &a);
    FAILS(ZAUTHFAILED, answered(&a, 1));
    CHECK(await(stranger, &stranger->auth_failed, 1), "the watcher hears of it");
    close_client(stranger);
    pthread_mutex_destroy(&a.lock);
    pthread_cond_destroy(&a.arrived);
}

/* -- sessions ---------------------------------------------------------------------------------------------------- */

/*
 * A client in a process of its own that makes an ephemeral and dies with its session open: this program again, called
 * with the node's path. It prints the session's id and password.
 */
static int abandon_session(const char *path, int timeout_ms, clientid_t *id) {
    char command[1024];
    snprintf(command, sizeof command, "exec '%s' '%s' '%s' %d", program, hosts, path, timeout_ms);
    FILE *child = popen(command, "r");
    if (child == NULL)
        return 0;
    unsigned char *bytes = (unsigned char *)id;
    size_t got = 0;
    unsigned int byte;
    while (got < sizeof *id && fscanf(child, "%2x", &byte) == 1)
        bytes[got++] = (unsigned char)byte;
    return pclose(child) == 0 && got == sizeof *id;
}

static int abandon(const char *path, int timeout_ms) {
    struct client *client = open_client(NULL, timeout_ms);
    if (!await(client, &client->connected, 1) ||
        zoo_create(client->handle, path, "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_EPHEMERAL, NULL, 0) != ZOK)
        return 1;
    const unsigned char *bytes = (const unsigned char *)zoo_client_id(client->handle);
    for (size_t i = 0; i < sizeof(clientid_t); i++)
        printf("%02x", bytes[i]);
    fflush(stdout);
    _exit(0);
}

static void reattach(struct client *c) {
    char top[PATH_BYTES];
    make_top(c, top);
    clientid_t id;
    CHECK(abandon_session(join(top, "/e"), 20000, &id), "a session to take over");
    struct client *second = open_client(&id, 20000);
    CHECK(await(second, &second->connected, 1), "no connection with the session's id");
    CHECK(zoo_client_id(second->handle)->client_id == id.client_id, "another session");
    struct Stat stat;
    OK(zoo_exists(second->handle, join(top, "/e"), 0, &stat));
    CHECK(stat.ephemeralOwner == id.client_id, "the ephemeral is another's");
    close_client(second);
    FAILS(ZNONODE, zoo_exists(c->handle, join(top, "/e"), 0, &stat));
    struct client *late = open_client(&id, 20000);
    CHECK(await(late, &late->expired, 1), "a closed session is not given back");
    close_client(late);
}

static void expiry(struct client *c) {
    char top[PATH_BYTES];
    make_top(c, top);
    clientid_t id;
    CHECK(abandon_session(join(top, "/e"), 1000, &id), "a session to let expire");
    struct Stat stat;
    int rc = zoo_wexists(c->handle, join(top, "/e"), watcher, c, &stat);
    CHECK(rc == ZOK || rc == ZNONODE, "%s", zerror(rc));
    if (rc == ZOK)
        CHECK(expect(c, ZOO_DELETED_EVENT, join(top, "/e")), "the ephemeral outlived its session");
    struct client *late = open_client(&id, 20000);
    CHECK(await(late, &late->expired, 1), "an expired session is not given back");
    close_client(late);
}

static void survive(struct client *c, const char *how) {
    char top[PATH_BYTES];
    (void)c;
    struct client *own = connect_client();
    make_top(own, top);
    struct Stat before, after;
    OK(zoo_create2(own->handle, join(top, "/e"), "1", 1, &ZOO_OPEN_ACL_UNSAFE, ZOO_EPHEMERAL, NULL, 0, &before));
    OK(zoo_wexists(own->handle, join(top, "/e"), watcher, own, &after));
    int64_t id = zoo_client_id(own->handle)->client_id;
    CHECK(restart(how), "nobody restarts the server");
    CHECK(await(own, &own->disconnects, 1) && await(own, &own->connected, 1), "reconnect");
    CHECK(zoo_client_id(own->handle)->client_id == id && !own->expired, "the session is another");
    OK(zoo_exists(own->handle, join(top, "/e"), 0, &after));
    CHECK(same_stat(&before, &after), "the node changed over a restart");
    /* The client set its watch again. */
    OK(zoo_set(own->handle, join(top, "/e"), "2", 1, 0));
    CHECK(expect(own, ZOO_CHANGED_EVENT, join(top, "/e")), "the watch did not survive");
    close_client(own);
}

static void survives_restart(struct client *c) {
    survive(c, "@restart");
}
static void survives_kill(struct client *c) {
    survive(c, "@kill");
}

static void run(const char *name, void (*test)(struct client *)) {
    failure[0] = 0;
    struct client *client = connect_client();
    test(client);
    close_client(client);
    if (failure[0]) {
        tests_failed++;
        printf("FAILED %s: %s\n", name, failure);
    } else {
        tests_passed++;
        printf("ok %s\n", name);
    }
    fflush(stdout);
}

int main(int count, char **arguments) {
    if (count != 2 && count != 4) {
        fprintf(stderr, "usage: %s host:port\n", arguments[0]);
        return 2;
    }
    program = arguments[0];
    hosts = arguments[1];
    zoo_set_debug_level(ZOO_LOG_LEVEL_ERROR);
    if (count == 4)
        return abandon(arguments[2], atoi(arguments[3]));
    zoo_deterministic_conn_order(1);
    run("synchronous", synchronous);
    run("asynchronous", asynchronous);
    run("multis", multis);
    run("watches", watches);
    run("acls", acls);
    run("reattach", reattach);
    run("expiry", expiry);
    run("survives_restart", survives_restart);
    run("survives_kill", survives_kill);
    printf("%d passed, %d failed\n", tests_passed, tests_failed);
    return tests_failed != 0;
}
