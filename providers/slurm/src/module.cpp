#include "providers_slurm/slurm_provider.h"

using farcall::providers::slurm::SlurmProvider;
FARCALL_PROVIDER(SlurmProvider)
