// What a task is, how it ends, and when it is tried again. Pure values and rules.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/ids.h"
#include "model/range_set.h"

namespace farcall {

// X(enumerator, number on the wire, name)
#define FARCALL_FUNCTION_KIND_TABLE(X)                                                             \
  X(kPythonSource, 1, "python")        /* body: JSON {"entry": name, "source": module text} */     \
  X(kPythonPickle, 2, "python-pickle") /* body: cloudpickle or dill bytes, see docs/payloads.md */ \
  X(kShell, 3, "shell")                /* body: JSON, see docs/payloads.md */                      \
  X(kNative, 4, "native")                                                                          \
  X(kMpiProgram, 5, "mpi-program")                                                                 \
  X(kMpiFunction, 6, "mpi-function")

enum class FunctionKind : std::uint8_t {
#define FARCALL_X(enumerator, number, name) enumerator = number,
  FARCALL_FUNCTION_KIND_TABLE(FARCALL_X)
#undef FARCALL_X
};
std::string_view name_of(FunctionKind kind);
std::optional<FunctionKind> function_kind_from_name(std::string_view name);

// Where a task stands, as its owner sees it. The last three are final.
#define FARCALL_TASK_STATE_TABLE(X)                                       \
  X(kPending, 1, "pending")     /* at the relay */                        \
  X(kDelivered, 2, "delivered") /* in the queue of its endpoint */        \
  X(kRunning, 3, "running")     /* on a worker; reported, never stored */ \
  X(kSucceeded, 4, "succeeded")                                           \
  X(kFailed, 5, "failed")                                                 \
  X(kCancelled, 6, "cancelled")

enum class TaskState : std::uint8_t {
#define FARCALL_X(enumerator, number, name) enumerator = number,
  FARCALL_TASK_STATE_TABLE(FARCALL_X)
#undef FARCALL_X
};
std::string_view name_of(TaskState state);
inline bool is_final(TaskState state) { return state >= TaskState::kSucceeded; }

// Why an attempt gave no value. Each class has its own budget (see RetryPolicy).
#define FARCALL_FAILURE_CLASS_TABLE(X)                                                     \
  X(kNone, 0, "none")                                                                      \
  X(kUserError, 1, "user_error") /* the function raised, the command exited != 0 */        \
  X(kCrash, 2, "crash")          /* the worker died under the task */                      \
  X(kMemoryExceeded, 3, "memory_exceeded")                                                 \
  X(kTimeExceeded, 4, "time_exceeded")       /* the task's walltime */                     \
  X(kLost, 5, "lost")                        /* node or pilot gone */                      \
  X(kAllocationEnded, 6, "allocation_ended") /* the batch job's walltime, or preemption */ \
  X(kEnvironment, 7, "environment")          /* the worker could not start at all */       \
  X(kCancelled, 8, "cancelled")

enum class FailureClass : std::uint8_t {
#define FARCALL_X(enumerator, number, name) enumerator = number,
  FARCALL_FAILURE_CLASS_TABLE(FARCALL_X)
#undef FARCALL_X
};
inline constexpr std::size_t kFailureClassCount = 9;
std::string_view name_of(FailureClass failure);

// How many times a task may fail in a class and still be tried again.
struct RetryPolicy {
  std::uint16_t user_error = 0;
  std::uint16_t crash = 1;
  std::uint16_t lost = 3;
  std::uint16_t memory_exceeded = 0;
  std::uint16_t time_exceeded = 0;
  std::uint16_t allocation_ended = 2;
  std::uint16_t environment = 3;
  bool never = false;  // one attempt only, whatever happens to it

  std::uint16_t budget(FailureClass failure) const;
  bool operator==(const RetryPolicy&) const = default;
};

// What a task has been through. A task that has not failed yet needs none: it is on attempt 1.
struct TaskHistory {
  std::uint32_t index = 0;
  std::uint16_t attempt = 1;  // the current or next one, from 1
  std::array<std::uint16_t, kFailureClassCount> failures{};

  // Counts a failure of the current attempt. True: try again, `attempt` has gone up.
  // False: the budget of the class is spent, the failure is final.
  bool charge(FailureClass failure, const RetryPolicy& policy);
  bool operator==(const TaskHistory&) const = default;
};

// What one task holds while it runs.
struct Resources {
  std::uint32_t cores = 1;
  std::uint64_t memory_mib = 0;  // 0: not asked for
  std::uint32_t gpus = 0;
  std::uint32_t nodes = 1;
  std::uint32_t ranks = 0;  // 0: no MPI
  bool exclusive = false;   // whole nodes
  bool operator==(const Resources&) const = default;
};

// All that the tasks of one submission have in common.
struct SubmissionHeader {
  SubmissionId submission;
  FunctionId function;
  EndpointId endpoint;
  std::string owner;          // user name; set by the relay, whatever a client says
  std::string group;          // task group, may be empty
  std::string label;          // for people
  std::int32_t priority = 0;  // lower runs first, as in Globus Compute
  Resources resources;
  std::uint64_t walltime_ms = 0;  // of one task; 0: none
  RetryPolicy retry;
  std::map<std::string, std::string> environment;
  bool sandbox = false;         // a fresh working directory per attempt
  std::int64_t created_ms = 0;  // wall clock of the client
  bool operator==(const SubmissionHeader&) const = default;
};

struct FunctionRecord {
  FunctionId id;  // content_id of kind, name and body
  FunctionKind kind = FunctionKind::kPythonSource;
  std::string name;
  std::string meta;  // JSON: python_version, serializer, description …
  bool operator==(const FunctionRecord&) const = default;
};

// The same code is the same function: docs/payloads.md.
FunctionId function_id(FunctionKind kind, std::string_view name, std::string_view body);

// One attempt's end. The value, or the text of the failure, travels beside it as bytes
// (docs/payloads.md); data_size of them.
struct TaskOutcome {
  std::uint32_t index = 0;
  std::uint16_t attempt = 1;
  TaskState state = TaskState::kSucceeded;  // one of the final three
  FailureClass failure = FailureClass::kNone;
  std::int32_t exit_code = 0;
  std::int32_t signal = 0;
  std::int64_t started_ms = 0;  // wall clock of the node; 0: never started
  std::int64_t ended_ms = 0;
  std::string host;
  std::uint64_t data_size = 0;
  bool operator==(const TaskOutcome&) const = default;
};

}  // namespace farcall
