// The embedded store: one SQLite file in WAL mode, one transaction per commit(), synced.
#pragma once

#include <filesystem>
#include <memory>

#include "relay/store/store.h"

namespace farcall::relay {

// Made when it is not there. kBusy: another relay has it open. kVersion: a newer relay wrote it.
// A file "<path>.opened" beside it is how a restored backup is noticed: its generation is raised.
Result<std::unique_ptr<Store>> open_sqlite_store(const std::filesystem::path& path);

}  // namespace farcall::relay
