// For LD_PRELOAD: from the call number $NO_THREADS_FROM on, or from when the file $NO_THREADS is there, no thread can be started.
// What a full cgroup or ulimit -u does to a daemon.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

typedef int (*create)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);

int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*run)(void*), void* argument) {
  static atomic_long calls;
  const char* from = getenv("NO_THREADS_FROM");
  const char* marker = getenv("NO_THREADS");
  if (from != NULL && atomic_fetch_add(&calls, 1) >= atol(from)) return EAGAIN;
  if (marker != NULL && access(marker, F_OK) == 0) return EAGAIN;
  return ((create)dlsym(RTLD_NEXT, "pthread_create"))(thread, attributes, run, argument);
}
