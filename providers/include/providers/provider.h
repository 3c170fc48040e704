// What farcall asks of a batch scheduler, as a C++ class. FARCALL_PROVIDER() makes a module of it.
//
// A provider keeps no state of its own about blocks: the caller records intents and ids, and finds
// a job again by its name. Every call may block (it runs scheduler commands with a time limit) and
// comes from one thread at a time. How a call fails tells the caller what to do:
//   kSchedulerRefused      said no, in the scheduler's own words; asking again gives the same
//   answer kSchedulerLimit        said "not now": a submit limit; wait kSchedulerUnavailable  not
//   reached; surely nothing was submitted or changed kOutcomeUnknown        may or may not have
//   taken effect: look the name up
#pragma once

#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/config.h"
#include "base/error.h"
#include "providers/provider_abi.h"

namespace farcall::providers {

// One batch job. The command runs once on each node and finds there
//   FARCALL_JOB_ID, FARCALL_JOB_NAME  what submit() was given and returned
//   FARCALL_NODE_RANK                 0 … nodes-1
//   FARCALL_JOB_START                 another text at each start of the job (a requeue), the same
//                                     on all of its nodes
//   FARCALL_JOB_ENDS_AT               seconds since 1970 at which the walltime is over
struct BlockRequest {
  std::string job_name;   // unique for ever; letters, digits, - _ . only, at most 128
  int nodes = 1;          //
  std::string command;    // shell command line
  std::string directory;  // absolute, exists on the nodes too; gets the script and the output
  double walltime_s = 0;  // > 0
  std::vector<std::string>
      exclude_nodes;  // must not be part of it, where the scheduler can do that
};

struct SubmitReply {
  std::string job_id;
};

enum class JobState {
  kUnknown,  // not listed any more, or in a state this version does not know: see `word`
  kQueued,
  kRunning,  // also suspended
  kEnding,   // its processes are being ended
  kEnded,
};

enum class EndedBy {
  kUnknown,
  kCompleted,  // exit code 0
  kFailed,     // another exit code or a signal from inside, or it could not start
  kCancelled,
  kWalltime,
  kNodeFailure,
  kPreempted,
  kOutOfMemory,
};

struct JobStatus {
  std::string job_id;
  JobState state = JobState::kUnknown;
  bool listed = true;    // false: the scheduler does not know the id (yet, or any more)
  std::string job_name;  // compare it: a scheduler that lost its state gives ids out again
  std::string word;      // the scheduler's own word for the state
  std::string reason;    // the scheduler's own reason, "" if it gives none
  EndedBy ended_by = EndedBy::kUnknown;  // when kEnded
  std::optional<int> exit_code;          // when kEnded and known
  std::optional<int> signal;             // that ended it, if one did
  std::vector<std::string> nodes;        // when it has any
  std::optional<double> remaining_s;     // of the walltime, when it runs
  std::optional<int> restarts;           // how often the scheduler started it again

  bool operator==(const JobStatus&) const = default;
};

// What is here to be used, for people who write a configuration.
struct Choice {
  std::string value;
  std::string note;        // "4 nodes, 8 cores each, at most 30:00"
  bool preferred = false;  // the scheduler's own default

  bool operator==(const Choice&) const = default;
};
struct Discovery {
  bool present = false;                                // the scheduler answers on this host
  std::string what;                                    // "slurm-wlm 22.05.8"
  std::map<std::string, std::vector<Choice>> choices;  // by configuration key: partition, account …

  bool operator==(const Discovery&) const = default;
};

class Provider {
 public:
  virtual ~Provider() = default;

  // Calls the scheduler's submit command once. Makes `directory` if it is not there.
  virtual Result<SubmitReply> submit(const BlockRequest& request) = 0;
  // One scheduler command for all ids; exactly one answer for each, in the order asked.
  virtual Result<std::vector<JobStatus>> status(const std::vector<std::string>& job_ids) = 0;
  // Ids of the jobs of that name, waiting, running or ended not long ago; normally none or one.
  virtual Result<std::vector<std::string>> find_by_name(const std::string& job_name) = 0;
  // Returns when the scheduler has taken the wish; the jobs end later. Unknown and ended ids are no
  // error.
  virtual Result<void> cancel(const std::vector<std::string>& job_ids) = 0;
  // What submit() would submit, for people.
  virtual Result<std::string> script(const BlockRequest& request) = 0;
  // Whether the scheduler would take it, in its own words; nothing runs. kNotFound when this
  // provider has no way to tell.
  virtual Result<std::string> try_submit(const BlockRequest& request);
  // Never fails: a scheduler that does not answer is not present.
  virtual Discovery discover() { return {}; }
};

// What status() says of an id that the scheduler does not know.
JobStatus not_listed(const std::string& job_id);

std::string_view job_state_name(JobState state);
std::string_view ended_by_name(EndedBy ended_by);

// kInvalidArgument names the field that makes no sense. Every provider's submit() starts with it.
Result<void> check_request(const BlockRequest& request);

// The keys that every provider shares and that the interchange reads from the same map: walltime,
// worker_init, nodes_per_block, init_blocks, min_blocks, max_blocks, parallelism, cmd_timeout.
// A provider's schema() starts with them and may change their defaults.
std::vector<ConfigKey> common_keys();
ConfigKey& key_named(std::vector<ConfigKey>& keys, std::string_view name);

// JSON of the binary interface, for both of its sides.
nlohmann::json request_to_json(const BlockRequest& request);
Result<BlockRequest> request_from_json(const nlohmann::json& json);
nlohmann::json status_to_json(const JobStatus& status);
Result<JobStatus> status_from_json(const nlohmann::json& json);
nlohmann::json keys_to_json(const std::vector<ConfigKey>& keys);
Result<std::vector<ConfigKey>> keys_from_json(const nlohmann::json& json);
nlohmann::json discovery_to_json(const Discovery& discovery);
Result<Discovery> discovery_from_json(const nlohmann::json& json);
nlohmann::json error_to_json(const Error& error);
Error error_from_json(const nlohmann::json& json);  // kInternal if it is none

// Used by FARCALL_PROVIDER.
using CreateFunction = Result<std::unique_ptr<Provider>> (*)(const nlohmann::json& config);
char* abi_schema(std::vector<ConfigKey> (*schema)()) noexcept;
farcall_provider* abi_create(CreateFunction create, const char* config_json,
                             char** error_json) noexcept;
void abi_destroy(farcall_provider* provider) noexcept;
char* abi_call(farcall_provider* provider, const char* request_json) noexcept;
void abi_free_string(char* text) noexcept;

}  // namespace farcall::providers

// Makes a module of `Class`, a Provider with
//   static constexpr const char* kName, kVersion;
//   static std::vector<ConfigKey> schema();
//   static Result<std::unique_ptr<Provider>> create(const nlohmann::json& config);
// Once per module, at namespace scope.
#define FARCALL_PROVIDER(Class)                                                          \
  extern "C" __attribute__((visibility("default"))) const farcall_provider_table*        \
  farcall_provider_entry(void) {                                                         \
    static const farcall_provider_table table = {                                        \
        FARCALL_PROVIDER_ABI_VERSION,                                                    \
        sizeof(farcall_provider_table),                                                  \
        Class::kName,                                                                    \
        Class::kVersion,                                                                 \
        [] { return ::farcall::providers::abi_schema(&Class::schema); },                 \
        [](const char* config, char** error) {                                           \
          return ::farcall::providers::abi_create(&Class::create, config, error);        \
        },                                                                               \
        [](farcall_provider* provider) { ::farcall::providers::abi_destroy(provider); }, \
        [](farcall_provider* provider, const char* request) {                            \
          return ::farcall::providers::abi_call(provider, request);                      \
        },                                                                               \
        [](char* text) { ::farcall::providers::abi_free_string(text); },                 \
    };                                                                                   \
    return &table;                                                                       \
  }
