/* Has the entry and nothing behind it. */
#include <stddef.h>

#include "providers/provider_abi.h"

__attribute__((visibility("default"))) const farcall_provider_table* farcall_provider_entry(void);
const farcall_provider_table* farcall_provider_entry(void) { return NULL; }
