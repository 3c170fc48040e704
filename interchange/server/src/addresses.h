// Where pilots can reach this host.
#pragma once

#include <string>
#include <vector>

#include "base/error.h"

namespace farcall::interchange {

// tcp://ADDRESS:PORT of every IPv4 address of this host, loopback last; or of those that `wanted`
// names (host name, address or interface), in its order. kConfig names what fits nothing.
Result<std::vector<std::string>> reachable_addresses(const std::vector<std::string>& wanted,
                                                     const std::string& port);

}  // namespace farcall::interchange
