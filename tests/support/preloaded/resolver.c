/*
 * Adds names to the resolver: FAKE_HOSTS is "NAME=ADDRESS,ADDRESS NAME=ADDRESS", and the addresses
 * are returned in that order. ADDRESS may be followed by @PORT, which replaces the requested port.
 * A name without an address is unknown; one that begins with a dot stands for
 * all names that end with it. FAKE_HOSTS_DELAY is the time of such a look-up in milliseconds.
 * It relies on glibc, whose freeaddrinfo() frees each member of the list separately.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

typedef int lookup(const char *, const char *, const struct addrinfo *, struct addrinfo **);

/* Returns the beginning of a name's addresses in FAKE_HOSTS, or NULL. */
static const char *find(const char *name)
{
    const char *hosts = getenv("FAKE_HOSTS");
    size_t length = name == NULL ? 0 : strlen(name);

    while (length > 0 && hosts != NULL && *hosts != '\0') {
        size_t listed = strcspn(hosts, "= ");
        const char *end = listed <= length ? name + length - listed : name;

        if (hosts[listed] == '=' && strncmp(hosts, end, listed) == 0
            && (listed == length || (listed < length && *hosts == '.')))
            return hosts + listed + 1;
        hosts = strchr(hosts, ' ');
        if (hosts != NULL)
            hosts++;
    }
    return NULL;
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
                struct addrinfo **result)
{
    lookup *real = (lookup *)dlsym(RTLD_NEXT, "getaddrinfo");
    const char *addresses = find(name);
    const char *delay = getenv("FAKE_HOSTS_DELAY");
    struct addrinfo **end = result;

    if (addresses == NULL || (hints != NULL && hints->ai_flags & AI_NUMERICHOST))
        return real(name, service, hints, result);
    if (delay != NULL)
        poll(NULL, 0, atoi(delay));
    *result = NULL;
    while (strcspn(addresses, ", ") > 0) {
        char address[64];
        size_t length = strcspn(addresses, ", ");
        char *port;
        int code;

        if (length >= sizeof(address))
            return EAI_FAIL;
        memcpy(address, addresses, length);
        address[length] = '\0';
        port = strchr(address, '@');
        if (port != NULL)
            *port++ = '\0';
        code = real(address, port != NULL ? port : service, hints, end);
        if (code != 0)
            return code;
        while (*end != NULL)
            end = &(*end)->ai_next;
        addresses += length + (addresses[length] == ',');
    }
    return *result != NULL ? 0 : EAI_NONAME;
}
