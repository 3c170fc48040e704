// The native function that farcall-bench calls, in a shared object of its own as a user would have.
#include <farcall/function.h>

FARCALL_FUNCTION(nop, [](std::int64_t value) { return value; })
