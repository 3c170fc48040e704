#include "providers_local/local_provider.h"

using farcall::providers::local::LocalProvider;
FARCALL_PROVIDER(LocalProvider)
