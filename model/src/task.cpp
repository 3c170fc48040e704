#include "model/task.h"

#include <limits>

#include "base/keys.h"

namespace farcall {

std::string_view name_of(FunctionKind kind) {
  switch (kind) {
#define FARCALL_X(enumerator, number, name) \
  case FunctionKind::enumerator:            \
    return name;
    FARCALL_FUNCTION_KIND_TABLE(FARCALL_X)
#undef FARCALL_X
  }
  return "unknown";
}

std::optional<FunctionKind> function_kind_from_name(std::string_view text) {
#define FARCALL_X(enumerator, number, name) \
  if (text == name) return FunctionKind::enumerator;
  FARCALL_FUNCTION_KIND_TABLE(FARCALL_X)
#undef FARCALL_X
  return std::nullopt;
}

std::string_view name_of(TaskState state) {
  switch (state) {
#define FARCALL_X(enumerator, number, name) \
  case TaskState::enumerator:               \
    return name;
    FARCALL_TASK_STATE_TABLE(FARCALL_X)
#undef FARCALL_X
  }
  return "unknown";
}

std::string_view name_of(FailureClass failure) {
  switch (failure) {
#define FARCALL_X(enumerator, number, name) \
  case FailureClass::enumerator:            \
    return name;
    FARCALL_FAILURE_CLASS_TABLE(FARCALL_X)
#undef FARCALL_X
  }
  return "unknown";
}

std::uint16_t RetryPolicy::budget(FailureClass failure) const {
  if (never) return 0;
  switch (failure) {
    case FailureClass::kUserError:
      return user_error;
    case FailureClass::kCrash:
      return crash;
    case FailureClass::kMemoryExceeded:
      return memory_exceeded;
    case FailureClass::kTimeExceeded:
      return time_exceeded;
    case FailureClass::kLost:
      return lost;
    case FailureClass::kAllocationEnded:
      return allocation_ended;
    case FailureClass::kEnvironment:
      return environment;
    case FailureClass::kNone:  // the fault of another task, which pays for it
      return std::numeric_limits<std::uint16_t>::max();
    case FailureClass::kCancelled:
      return 0;
  }
  return 0;
}

bool TaskHistory::charge(FailureClass failure, const RetryPolicy& policy) {
  auto& count = failures[static_cast<std::size_t>(failure)];
  ++count;
  if (count > policy.budget(failure)) return false;
  ++attempt;
  return true;
}

FunctionId function_id(FunctionKind kind, std::string_view name, std::string_view body) {
  std::string content(1, static_cast<char>(kind));
  content.append(name);
  content.push_back('\0');
  content.append(body);
  return FunctionId{content_id(content)};
}

}  // namespace farcall
