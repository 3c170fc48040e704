// The relay's store in one SQLite file (WAL, synchronous=FULL), held exclusively.
#pragma once

#include <filesystem>
#include <memory>

#include "relay/store/store.h"

namespace farcall::relay {

// kBusy when another relay has the file; kVersion when a newer farcall wrote it.
Result<std::unique_ptr<Store>> open_sqlite_store(const std::filesystem::path& path);

}  // namespace farcall::relay
