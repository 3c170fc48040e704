/* What stands between a shared object with functions and the runner that calls them: C only, so
   that compilers and their libraries may differ. Use <farcall/function.h>; this is what it is made
   with. Threads: `call` is called on one thread, one call at a time; `progress` may come from any
   thread until `call` has returned. Memory: whoever passes bytes keeps them; the other side copies.
 */
#ifndef FARCALL_FUNCTION_ABI_H
#define FARCALL_FUNCTION_ABI_H

#include <stddef.h>

#define FARCALL_FUNCTION_ABI 1u
#define FARCALL_FUNCTION_PREFIX "farcall_function_"
#define FARCALL_MPI_FUNCTION_PREFIX "farcall_mpi_function_"

#ifdef __cplusplus
extern "C" {
#endif

enum farcall_answer {
  FARCALL_VALUE = 0,     /* data: a value as docs/payloads.md has it ('J' or 'M') */
  FARCALL_EXCEPTION = 1, /* data: JSON {"type", "message"} of what the function threw */
  FARCALL_ARGUMENTS = 2  /* data: the same; the arguments do not suit the function */
};

/* The runner's side. Fields are only ever added at the end; `size` is sizeof of the runner's. */
struct farcall_host {
  unsigned abi;
  unsigned size;
  void* context;
  void (*answer)(void* context, int kind, const char* data, size_t size); /* exactly once */
  void (*progress)(void* context, double done, double total, const char* note, size_t size);
};

/* The function's side: exported as farcall_function_NAME. */
struct farcall_function {
  unsigned abi;
  unsigned size;
  const char* name;
  const char* built_with; /* compiler, for people */
  void (*call)(const struct farcall_host* host, const char* arguments, size_t size);
};

/* An MPI function: exported as farcall_mpi_function_NAME. `comm`: the communicator's handle in
   Fortran, which has one size in every MPI library. */
struct farcall_mpi_function {
  unsigned abi;
  unsigned size;
  const char* name;
  const char* built_with;
  void (*call)(const struct farcall_host* host, int comm, const char* arguments, size_t size);
};

#ifdef __cplusplus
}
#endif

#endif
