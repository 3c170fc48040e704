// What the core is told once, at its start.
#pragma once

#include <cstdint>
#include <string>

#include "base/clock.h"
#include "base/ids.h"

namespace farcall::interchange {

using std::chrono::milliseconds;
using std::chrono::seconds;

// Who decides how many blocks there are; the first three as Parsl and Globus Compute know them.
enum class Strategy : std::uint8_t {
  kNone,           // init_blocks at the start, and that is all
  kSimple,         // counts tasks; gives blocks back only when there is no task at all
  kHtexAutoScale,  // counts tasks; gives back each block that is idle
  kAuto,           // counts cores; gives back what is not needed, the emptiest block first
};

// How many blocks there should be, in the words of Globus Compute.
struct ScalingSettings {
  Strategy strategy = Strategy::kAuto;
  int init_blocks = 1;
  int min_blocks = 0;
  int max_blocks = 1;
  int nodes_per_block = 1;
  double parallelism = 1.0;
  double walltime_s = 600;
  Duration max_idletime = seconds(120);
  double core_hours_max = 0;         // of all blocks that ever were; 0: no limit
  std::uint32_t cores_per_node = 0;  // what that counts; 0: what the pilots have reported
};

struct Settings {
  EndpointId endpoint;
  std::string endpoint_name;
  InstanceId instance;  // of the database
  bool take_over = false;
  std::string software;
  std::string host;
  std::int32_t pid = 0;

  std::uint32_t slots_per_node = 0;    // tasks of one core at once; 0: what the pilot has
  std::uint32_t cores_per_worker = 1;  // divides a pilot's cores when slots_per_node is 0
  // Cores' worth of tasks beyond the slots; -1: the slots, and more of a short function.
  std::int64_t prefetch = -1;
  Duration heartbeat = seconds(5);
  Duration lost_timeout = seconds(120);
  std::uint64_t window_tasks = 100'000;          // argument sets held in memory
  std::uint64_t window_bytes = 256ULL << 20;     // their bytes
  std::uint64_t spool_bytes_max = 4ULL << 30;    // nothing is placed while more waits for the relay
  std::uint64_t blob_cache_bytes = 50ULL << 30;  // of blobs that no task here needs right now
  Duration stop_grace = seconds(5);              // for running tasks when the endpoint is stopped
  Duration stop_limit = seconds(30);             // then it exits although blocks may be left
  bool scheduler_is_local = false;               // asked once a second, it costs nothing
  Duration scheduler_interval = seconds(30);     // between two queries, while all pilots call home
  Duration lookup_grace = seconds(60);  // how long a job in doubt is looked for by its name
  ScalingSettings scaling;
};

}  // namespace farcall::interchange
