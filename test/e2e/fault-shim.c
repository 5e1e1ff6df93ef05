// Lets chosen system calls of a process fail: loaded with LD_PRELOAD, it stands between Node and libc.
//
// FAULT_CONTROL names a file that is read before each call which it might concern: a number, then a line per rule,
// "<call> <scope> <errno> <times>". A new number begins all rules anew. <call>: open (to write), write, sync, truncate or
// unlink. <scope>: segment (*.seg), folder (the journal's own, whose entries are synced), head, or cursor (*.cursor).
// <errno> 0: half of the bytes are written. <times> -1: until told otherwise.
// FAULT_LOG is appended to: "failed <number> <call> <scope>" for each call that was made to fail, and "again" in the place
// of "failed" for each write or sync of a file whose sync had failed: the kernel may take lost pages for written ones.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define MOST_FILES 65536
#define MOST_RULES 8

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int current, left[MOST_RULES];
static char failedSync[MOST_FILES];

static int endsWith(const char *text, const char *end) {
  size_t length = strlen(text), tail = strlen(end);
  return length >= tail && strcmp(text + length - tail, end) == 0;
}

static const char *scopeOf(const char *path) {
  if (endsWith(path, ".seg")) return "segment";
  if (endsWith(path, ".cursor")) return "cursor";
  if (endsWith(path, "/journal/head")) return "head";
  return endsWith(path, "/journal") ? "folder" : NULL;
}

static const char *scopeOfFile(int fd) {
  static __thread char path[4096];
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length <= 0) return NULL;
  path[length] = 0;
  return scopeOf(path);
}

static void tell(const char *what, const char *call, const char *scope) {
  char line[128];
  int length = snprintf(line, sizeof line, "%s %d %s %s\n", what, current, call, scope);
  int fd = REAL(open64)(getenv("FAULT_LOG"), O_WRONLY | O_APPEND | O_CREAT, 0600);
  if (fd < 0) return;
  if (REAL(write)(fd, line, length) < 0) abort();
  REAL(close)(fd);
}

// The error that the call must end with; 0: half a write; -1: none, the call is made.
static int follow(FILE *control, const char *call, const char *scope) {
  char wantedCall[16], wantedScope[16];
  int number, error, times;
  if (fscanf(control, "%d", &number) != 1) return -1;
  int isNew = number != current, result = -1;
  current = number;
  for (int rule = 0; rule < MOST_RULES; rule += 1) {
    if (fscanf(control, "%15s %15s %d %d", wantedCall, wantedScope, &error, &times) != 4) break;
    if (isNew) left[rule] = times;
    if (result >= 0 || left[rule] == 0 || strcmp(call, wantedCall) != 0 || strcmp(scope, wantedScope) != 0) continue;
    if (left[rule] > 0) left[rule] -= 1;
    tell("failed", call, scope);
    result = error;
  }
  return result;
}

static int faultOf(const char *call, const char *scope) {
  if (scope == NULL) return -1;
  pthread_mutex_lock(&lock);
  FILE *control = fopen(getenv("FAULT_CONTROL"), "r");
  int result = control == NULL ? -1 : follow(control, call, scope);
  if (control != NULL) fclose(control);
  pthread_mutex_unlock(&lock);
  return result;
}

static void watch(int fd, const char *call) {
  const char *scope = scopeOfFile(fd);
  if (scope == NULL || strcmp(scope, "segment") != 0 || fd >= MOST_FILES || !failedSync[fd]) return;
  pthread_mutex_lock(&lock);
  tell("again", call, scope);
  pthread_mutex_unlock(&lock);
}

int open64(const char *path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  mode_t mode = va_arg(arguments, mode_t);
  va_end(arguments);
  // Files that are read are the business of the sinks.
  int error = (flags & O_ACCMODE) == O_RDONLY ? -1 : faultOf("open", scopeOf(path));
  if (error > 0) {
    errno = error;
    return -1;
  }
  int fd = REAL(open64)(path, flags, mode);
  if (fd >= 0 && fd < MOST_FILES) failedSync[fd] = 0;
  return fd;
}

static size_t sizeOf(const struct iovec *parts, int count) {
  size_t size = 0;
  for (int index = 0; index < count; index += 1) size += parts[index].iov_len;
  return size;
}

static ssize_t writeHalf(int fd, const struct iovec *parts, int count, off64_t offset) {
  size_t whole = sizeOf(parts, count), half = whole / 2, at = 0;
  char *bytes = malloc(whole);
  for (int index = 0; index < count; index += 1) {
    memcpy(bytes + at, parts[index].iov_base, parts[index].iov_len);
    at += parts[index].iov_len;
  }
  ssize_t written = REAL(pwrite64)(fd, bytes, half, offset);
  free(bytes);
  return written;
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset) {
  watch(fd, "write");
  int error = faultOf("write", scopeOfFile(fd));
  if (error < 0) return REAL(pwritev64)(fd, parts, count, offset);
  if (error == 0) return writeHalf(fd, parts, count, offset);
  errno = error;
  return -1;
}

ssize_t pwrite64(int fd, const void *bytes, size_t size, off64_t offset) {
  watch(fd, "write");
  int error = faultOf("write", scopeOfFile(fd));
  if (error < 0) return REAL(pwrite64)(fd, bytes, size, offset);
  if (error == 0) return REAL(pwrite64)(fd, bytes, size / 2, offset);
  errno = error;
  return -1;
}

static int syncFile(int fd, int (*real)(int)) {
  watch(fd, "sync");
  int error = faultOf("sync", scopeOfFile(fd));
  if (error < 0) return real(fd);
  if (fd < MOST_FILES) failedSync[fd] = 1;
  errno = error;
  return -1;
}

int fdatasync(int fd) { return syncFile(fd, REAL(fdatasync)); }

int fsync(int fd) { return syncFile(fd, REAL(fsync)); }

int ftruncate64(int fd, off64_t size) {
  int error = faultOf("truncate", scopeOfFile(fd));
  if (error < 0) return REAL(ftruncate64)(fd, size);
  errno = error;
  return -1;
}

int unlink(const char *path) {
  int error = faultOf("unlink", scopeOf(path));
  if (error < 0) return REAL(unlink)(path);
  errno = error;
  return -1;
}
