/* What waking up costs: one epoll loop that answers each request with the same bytes.
 *
 *   floor PORT FILE    FILE holds the answer, head and body
 *
 * It knows a request by the end of its head, and reads nothing else of it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 64, LONGEST = 65536 };

static char answer[LONGEST], held[LONGEST];

static void watch(int epoll, int link) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = link};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, link, &event) != 0) exit(1);
}

static int listening(int port) {
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 128)) exit(1);
    return listener;
}

/* Whether the connection goes on. */
static int serve(int link, size_t length) {
    ssize_t count = read(link, held, sizeof held);
    char *at = held, *end = held + count;
    if (count <= 0) return 0;
    while (at < end && (at = memmem(at, end - at, "\r\n\r\n", 4)) != NULL) {
        if (write(link, answer, length) < 0) return 0;
        at += 4;
    }
    return 1;
}

int main(int count, char **arguments) {
    if (count != 3) return 2;
    FILE *file = fopen(arguments[2], "rb");
    if (file == NULL) return 1;
    size_t length = fread(answer, 1, sizeof answer, file);
    fclose(file);
    int on = 1, listener = listening(atoi(arguments[1])), epoll = epoll_create1(0);
    watch(epoll, listener);
    struct epoll_event ready[EVENTS];
    for (;;) {
        int number = epoll_wait(epoll, ready, EVENTS, -1);
        for (int at = 0; at < number; at++) {
            int link = ready[at].data.fd;
            if (link == listener) {
                link = accept(listener, NULL, NULL);
                setsockopt(link, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                watch(epoll, link);
            } else if (!serve(link, length)) {
                close(link);
            }
        }
    }
}
