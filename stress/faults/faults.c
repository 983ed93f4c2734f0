/*
 * Counts the calls that may fail, makes one of them fail, and counts allocated
 * blocks.
 *
 * To be preloaded.  The extension reports its calls through faults_hit();
 * libremctl's allocations are recognised here, by the address of the calling
 * code.  A call is identified by its site and its number there since the
 * counters were reset.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SITES 1024
#define BLOCKS 4096

struct site {
    char name[128];
    int passed;
};

/* A range of memory with loaded code. */
struct range {
    uintptr_t start;
    uintptr_t end;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool counting;
static bool fired;
static char victim[128];
static int victim_pass;
static struct site sites[SITES];
static size_t site_count;
static void *blocks[BLOCKS];
static size_t block_count;
static struct range library, extension;

/* -- Which call is to fail -------------------------------------------------
 */

static bool
pass(const char *name)
{
    size_t i;
    bool fail = false;

    pthread_mutex_lock(&lock);
    if (counting) {
        for (i = 0; i < site_count && strcmp(sites[i].name, name) != 0; i++)
            ;
        if (i == site_count) {
            if (i == SITES)
                abort();
            snprintf(sites[i].name, sizeof(sites[i].name), "%s", name);
            sites[i].passed = 0;
            site_count++;
        }
        sites[i].passed++;
        fail = !fired && sites[i].passed == victim_pass
               && strncmp(name, victim, strlen(victim)) == 0;
        fired = fired || fail;
    }
    pthread_mutex_unlock(&lock);
    return fail;
}

int
faults_hit(const char *name, const char *file, int line)
{
    const char *base = strrchr(file, '/');
    char site[128];

    snprintf(site, sizeof(site), "%s %s:%d", name,
             base != NULL ? base + 1 : file, line);
    return pass(site);
}

/* Resets the counters.  The call at this site (given by a prefix of its name)
   with this number will fail; none, if the number is 0. */
void
faults_start(const char *site, int number)
{
    pthread_mutex_lock(&lock);
    site_count = 0;
    fired = false;
    snprintf(victim, sizeof(victim), "%s", site);
    victim_pass = number;
    counting = true;
    pthread_mutex_unlock(&lock);
}

/* Stops counting, or resumes. */
void
faults_pause(int pause)
{
    pthread_mutex_lock(&lock);
    counting = !pause;
    pthread_mutex_unlock(&lock);
}

/* Ends counting; returns whether the call was made, and failed. */
int
faults_stop(void)
{
    bool result;

    pthread_mutex_lock(&lock);
    counting = false;
    result = fired;
    pthread_mutex_unlock(&lock);
    return result;
}

/* Returns the name of a site and its number of calls; 0 after the last one. */
int
faults_site(size_t number, char *name, size_t size)
{
    if (number >= site_count)
        return 0;
    snprintf(name, size, "%s", sites[number].name);
    return sites[number].passed;
}

/* -- What is allocated -----------------------------------------------------
 */

static int
look_at_object(struct dl_phdr_info *info, size_t size, void *unused)
{
    struct range *found = NULL;
    int i;

    (void) size;
    (void) unused;
    if (strstr(info->dlpi_name, "/libremctl.so") != NULL)
        found = &library;
    else if (strstr(info->dlpi_name, "/_remctl.") != NULL)
        found = &extension;
    for (i = 0; found != NULL && i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_LOAD
            && (info->dlpi_phdr[i].p_flags & PF_X)) {
            found->start = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
            found->end = found->start + info->dlpi_phdr[i].p_memsz;
        }
    return 0;
}

/* Finds the addresses of both.  Returns whether both are loaded. */
int
faults_locate(void)
{
    dl_iterate_phdr(look_at_object, NULL);
    return library.end != 0 && extension.end != 0;
}

static bool
is_in(const struct range *range, const void *address)
{
    uintptr_t where = (uintptr_t) address;

    return range->start <= where && where < range->end;
}

/* Returns whether an allocation of libremctl must fail. */
static bool
denies(const char *function, const void *caller)
{
    char name[64];

    if (!counting || !is_in(&library, caller))
        return false;
    snprintf(name, sizeof(name), "%s libremctl+%#lx", function,
             (unsigned long) ((uintptr_t) caller - library.start));
    if (!pass(name))
        return false;
    errno = ENOMEM;
    return true;
}

static void *
enter_block(void *block, const void *caller)
{
    if (block == NULL
        || !(is_in(&library, caller) || is_in(&extension, caller)))
        return block;
    pthread_mutex_lock(&lock);
    if (block_count == BLOCKS)
        abort();
    blocks[block_count++] = block;
    pthread_mutex_unlock(&lock);
    return block;
}

static void
strike_block(void *block)
{
    size_t i;

    if (block == NULL || block_count == 0)
        return;
    pthread_mutex_lock(&lock);
    for (i = 0; i < block_count; i++)
        if (blocks[i] == block) {
            blocks[i] = blocks[--block_count];
            break;
        }
    pthread_mutex_unlock(&lock);
}

/* Returns the number of blocks that both have allocated and not freed. */
size_t
faults_blocks(void)
{
    size_t count;

    pthread_mutex_lock(&lock);
    count = block_count;
    pthread_mutex_unlock(&lock);
    return count;
}

/* -- The allocator's functions, in front of the real ones ------------------
 */

#define CALLER __builtin_return_address(0)

static void *(*real_malloc)(size_t);
static void *(*real_calloc)(size_t, size_t);
static void *(*real_realloc)(void *, size_t);
static void (*real_free)(void *);

static void
find(void *pointer, const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);

    memcpy(pointer, &found, sizeof(found));
}

__attribute__((constructor)) static void
find_all(void)
{
    find(&real_free, "free");
    find(&real_realloc, "realloc");
    find(&real_calloc, "calloc");
    find(&real_malloc, "malloc");
}

void *
malloc(size_t size)
{
    if (real_malloc == NULL)
        find_all();
    return denies("malloc", CALLER) ? NULL
                                    : enter_block(real_malloc(size), CALLER);
}

void *
calloc(size_t count, size_t size)
{
    if (real_calloc == NULL)
        find_all();
    return denies("calloc", CALLER)
               ? NULL
               : enter_block(real_calloc(count, size), CALLER);
}

void *
realloc(void *block, size_t size)
{
    if (real_realloc == NULL)
        find_all();
    if (denies("realloc", CALLER))
        return NULL;
    strike_block(block);
    return enter_block(real_realloc(block, size), CALLER);
}

void
free(void *block)
{
    if (real_free == NULL)
        find_all();
    strike_block(block);
    real_free(block);
}

char *
strdup(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy;

    if (denies("strdup", CALLER))
        return NULL;
    copy = enter_block(real_malloc(size), CALLER);
    return copy == NULL ? NULL : memcpy(copy, text, size);
}

static int
print(char **result, const char *format, va_list args, const char *function,
      const void *caller)
{
    va_list again;
    int length;

    if (denies(function, caller))
        return -1;
    va_copy(again, args);
    length = vsnprintf(NULL, 0, format, again);
    va_end(again);
    *result = enter_block(real_malloc((size_t) length + 1), caller);
    if (*result == NULL)
        return -1;
    return vsnprintf(*result, (size_t) length + 1, format, args);
}

int
vasprintf(char **result, const char *format, va_list args)
{
    return print(result, format, args, "vasprintf", CALLER);
}

int
asprintf(char **result, const char *format, ...)
{
    va_list args;
    int length;

    va_start(args, format);
    length = print(result, format, args, "asprintf", CALLER);
    va_end(args);
    return length;
}

/* What the two are with -D_FORTIFY_SOURCE. */
int
__vasprintf_chk(char **result, int flag, const char *format, va_list args)
{
    (void) flag;
    return print(result, format, args, "vasprintf", CALLER);
}

int
__asprintf_chk(char **result, int flag, const char *format, ...)
{
    va_list args;
    int length;

    (void) flag;
    va_start(args, format);
    length = print(result, format, args, "asprintf", CALLER);
    va_end(args);
    return length;
}
