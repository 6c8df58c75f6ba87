/* An echo and one-register lin-kv node in C: integers only, and as much JSON as it takes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static long number(const char *line, const char *key) {
    const char *at = strstr(line, key);
    return at ? strtol(at + strlen(key), NULL, 10) : -1;
}

static void text(const char *line, const char *key, char *out, size_t size) {
    const char *at = strstr(line, key);
    size_t length = at ? strcspn(at + strlen(key), "\"") : 0;
    snprintf(out, size, "%.*s", (int)length, at ? at + strlen(key) : "");
}

int main(void) {
    static char line[1 << 16], src[256], me[256], body[1 << 16];
    static long values[64], known[64];
    while (fgets(line, sizeof line, stdin)) {
        long id = number(line, "\"msg_id\":"), key = number(line, "\"key\":");
        text(line, "\"src\":\"", src, sizeof src);
        if (strstr(line, "\"type\":\"init\"")) {
            text(line, "\"node_id\":\"", me, sizeof me);
            snprintf(body, sizeof body, "\"type\":\"init_ok\"");
        } else if (strstr(line, "\"type\":\"echo\"")) {
            snprintf(body, sizeof body, "\"type\":\"echo_ok\",\"echo\":%ld", number(line, "\"echo\":"));
        } else if (key < 0 || key >= 64) {
            snprintf(body, sizeof body, "\"type\":\"error\",\"code\":12,\"text\":\"which key?\"");
        } else if (strstr(line, "\"type\":\"write\"")) {
            known[key] = 1, values[key] = number(line, "\"value\":");
            snprintf(body, sizeof body, "\"type\":\"write_ok\"");
        } else if (!known[key]) {
            snprintf(body, sizeof body, "\"type\":\"error\",\"code\":20,\"text\":\"no such key\"");
        } else if (strstr(line, "\"type\":\"read\"")) {
            snprintf(body, sizeof body, "\"type\":\"read_ok\",\"value\":%ld", values[key]);
        } else if (values[key] != number(line, "\"from\":")) {
            snprintf(body, sizeof body, "\"type\":\"error\",\"code\":22,\"text\":\"another value\"");
        } else {
            values[key] = number(line, "\"to\":");
            snprintf(body, sizeof body, "\"type\":\"cas_ok\"");
        }
        printf("{\"src\":\"%s\",\"dest\":\"%s\",\"body\":{%s,\"in_reply_to\":%ld}}\n", me, src, body, id);
        fflush(stdout);
    }
    return 0;
}
