/* Faults of a machine, by LD_PRELOAD: a disk whose fsync does not return, a disk that is full, a wall clock that was set.
 *
 * What holds now is read from a shared page (faults.py), whose path is in HEADGATE_FAULTS. Standard output, standard error and
 * everything that is not a regular file are left alone: they are not on the disk in question.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct faults {
    volatile int64_t hung;     /* fsync waits while this is not 0 */
    volatile int64_t full;     /* writes fail with ENOSPC: all of them (1), or those that make a file longer (2) */
    volatile int64_t clock_ns; /* the wall clock is off by this */
    volatile int64_t waiting;  /* how many calls wait in fsync */
};

static struct faults none;
static struct faults *now = &none;

__attribute__((constructor)) static void attach(void) {
    const char *path = getenv("HEADGATE_FAULTS");
    int fd = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    void *page = mmap(NULL, sizeof(struct faults), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (page != MAP_FAILED)
        now = page;
}

/* The C library's own function; looked up once, which any number of threads may do at the same time. */
#define REAL(name)                                                                                                     \
    static __typeof__(&name) real;                                                                                     \
    if (real == NULL)                                                                                                  \
    real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

/* SQLite cuts this file off when it opens a database, and writes it again in the space that it gave back. */
static int is_given_back(int fd) {
    char link[32], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path);
    return length > 4 && memcmp(path + length - 4, "-shm", 4) == 0;
}

/* Whether a write up to `end` is refused; at the present position for a negative `at`. */
static int is_refused(int fd, off_t at, size_t size) {
    struct stat found;
    if (!now->full || fd <= STDERR_FILENO || fstat(fd, &found) != 0 || !S_ISREG(found.st_mode))
        return 0;
    if (now->full == 2) {
        if (at < 0)
            at = fcntl(fd, F_GETFL) & O_APPEND ? found.st_size : lseek(fd, 0, SEEK_CUR);
        if (at + (off_t)size <= found.st_size || is_given_back(fd))
            return 0;
    }
    errno = ENOSPC;
    return 1;
}

static void wait_for_disk(void) {
    struct timespec pause = {0, 2000000};
    __atomic_add_fetch(&now->waiting, 1, __ATOMIC_SEQ_CST);
    while (now->hung)
        nanosleep(&pause, NULL);
    __atomic_sub_fetch(&now->waiting, 1, __ATOMIC_SEQ_CST);
}

int fsync(int fd) {
    REAL(fsync);
    wait_for_disk();
    return real(fd);
}

int fdatasync(int fd) {
    REAL(fdatasync);
    wait_for_disk();
    return real(fd);
}

ssize_t write(int fd, const void *data, size_t size) {
    REAL(write);
    return is_refused(fd, -1, size) ? -1 : real(fd, data, size);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    REAL(pwrite);
    return is_refused(fd, at, size) ? -1 : real(fd, data, size, at);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    REAL(pwrite64);
    return is_refused(fd, at, size) ? -1 : real(fd, data, size, at);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(writev);
    size_t size = 0;
    for (int part = 0; part < count; part++)
        size += parts[part].iov_len;
    return is_refused(fd, -1, size) ? -1 : real(fd, parts, count);
}

int posix_fallocate(int fd, off_t at, off_t size) {
    REAL(posix_fallocate);
    return is_refused(fd, at, size) ? ENOSPC : real(fd, at, size);
}

int clock_gettime(clockid_t which, struct timespec *found) {
    REAL(clock_gettime);
    int failed = real(which, found);
    if (failed == 0 && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE) && now->clock_ns != 0) {
        int64_t moved = (int64_t)found->tv_sec * 1000000000 + found->tv_nsec + now->clock_ns;
        found->tv_sec = moved / 1000000000;
        found->tv_nsec = moved % 1000000000;
    }
    return failed;
}

int gettimeofday(struct timeval *restrict found, void *restrict zone) {
    (void)zone;
    struct timespec precise;
    int failed = clock_gettime(CLOCK_REALTIME, &precise);
    found->tv_sec = precise.tv_sec;
    found->tv_usec = precise.tv_nsec / 1000;
    return failed;
}

time_t time(time_t *found) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (found != NULL)
        *found = precise.tv_sec;
    return precise.tv_sec;
}
