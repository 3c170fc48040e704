/* The binary interface between farcall and a provider module: plain C, JSON in and out.
 *
 * A module is a shared library on the provider path whose file name is its name (slurm.so) and that
 * exports one function, FARCALL_PROVIDER_ENTRY_SYMBOL. Whoever writes C++ includes provider.h and
 * uses FARCALL_PROVIDER() instead. docs/providers.md describes the requests.
 *
 * Threads: `schema`, `create`, `call` and `destroy` of one module are called by one thread at a
 * time, not always the same one, and may block for as long as the scheduler's commands take.
 * Strings are UTF-8 and end with 0. What a module returns is given back to its own free_string;
 * what it receives belongs to the caller. No exception may leave a function.
 */
#ifndef FARCALL_PROVIDERS_PROVIDER_ABI_H
#define FARCALL_PROVIDERS_PROVIDER_ABI_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Raised when anything below changes its meaning; a module of another version is refused. */
#define FARCALL_PROVIDER_ABI_VERSION 1u
#define FARCALL_PROVIDER_ENTRY_SYMBOL "farcall_provider_entry"

typedef struct farcall_provider farcall_provider; /* the module's own */

typedef struct farcall_provider_table {
  uint32_t abi_version; /* FARCALL_PROVIDER_ABI_VERSION; stays the first member for ever */
  uint32_t table_size;  /* sizeof(farcall_provider_table): later members are appended */
  const char* name;     /* lower case letters and digits, as the file's name without .so */
  const char* version;  /* of the module, for people */

  /* JSON array of the configuration keys, see docs/providers.md. Never NULL. */
  char* (*schema)(void);
  /* config_json: an object with every key of the schema and "directory", a folder for the
   * provider's own files. NULL and *error_json = {"code": ..., "message": ...} when it cannot work;
   * error_json is never NULL. */
  farcall_provider* (*create)(const char* config_json, char** error_json);
  void (*destroy)(farcall_provider* provider);
  /* {"op": "submit", ...} -> {"ok": ...} or {"error": {"code": ..., "message": ...}}. Never NULL.
   */
  char* (*call)(farcall_provider* provider, const char* request_json);
  void (*free_string)(char* text);
} farcall_provider_table;

typedef const farcall_provider_table* (*farcall_provider_entry_function)(void);

#ifdef __cplusplus
}
#endif

#endif
