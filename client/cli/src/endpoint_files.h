// The folders of endpoints of this home, and what their program says about them.
#pragma once

#include "command.h"

namespace farcall::cli {

inline constexpr const char* kProgram = "farcall-interchange";

std::filesystem::path endpoints_folder(const Invocation& invocation);
std::filesystem::path folder_of(const Invocation& invocation);  // of the first word
std::vector<std::string> local_endpoints(const Invocation& invocation);
// kNotFound names those that are there.
Result<void> must_be_configured(const Invocation& invocation);
// The interchange knows the keys; its program is asked so that this one needs no code of it.
Result<std::string> ask_interchange(const std::vector<std::string>& arguments);
Result<void> check_config_file(const std::filesystem::path& file);

// endpoint_configure.cpp
Command configure_command();
Command script_command();

}  // namespace farcall::cli
