#include "base/error.h"

#include <cstdio>
#include <cstdlib>

namespace farcall {

std::string_view error_name(ErrorCode code) {
  switch (code) {
#define FARCALL_ERROR_NAME(enumerator, number, name, exit_code, meaning) \
  case ErrorCode::enumerator:                                            \
    return name;
    FARCALL_ERROR_TABLE(FARCALL_ERROR_NAME)
#undef FARCALL_ERROR_NAME
  }
  return "internal";
}

int error_exit_code(ErrorCode code) {
  switch (code) {
#define FARCALL_ERROR_EXIT(enumerator, number, name, exit_code, meaning) \
  case ErrorCode::enumerator:                                            \
    return exit_code;
    FARCALL_ERROR_TABLE(FARCALL_ERROR_EXIT)
#undef FARCALL_ERROR_EXIT
  }
  return 70;
}

ErrorCode error_from_number(int number) {
  switch (number) {
#define FARCALL_ERROR_NUMBER(enumerator, value, name, exit_code, meaning) case value:
    FARCALL_ERROR_TABLE(FARCALL_ERROR_NUMBER)
#undef FARCALL_ERROR_NUMBER
    return static_cast<ErrorCode>(number);
    default:
      return ErrorCode::kInternal;
  }
}

void check_failed(const char* file, int line, const char* condition, const std::string& text) {
  std::fprintf(stderr, "%s:%d: check failed: %s: %s\n", file, line, condition, text.c_str());
  std::fflush(stderr);
  std::abort();
}

}  // namespace farcall
