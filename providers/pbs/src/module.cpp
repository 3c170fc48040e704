#include "providers_pbs/pbs_provider.h"

using farcall::providers::pbs::PbsProProvider;
FARCALL_PROVIDER(PbsProProvider)
