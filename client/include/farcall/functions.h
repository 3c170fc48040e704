// Functions in files of this machine, ready to be registered. Thread-safe.
#pragma once

#include <filesystem>
#include <string>

#include "base/bytes.h"
#include "base/error.h"
#include "model/task.h"

namespace farcall {

struct LocalFunction {
  FunctionRecord record;  // its id is the content's
  Bytes body;
};

// A function of a shared object that was declared with FARCALL_FUNCTION (farcall/function.h), or
// with FARCALL_MPI_FUNCTION: then of kind mpi-function, its tasks need ranks. The file is looked
// into and not loaded. kInvalidArgument when it is no shared object, kNotFound lists
// the functions that it does have.
Result<LocalFunction> read_native_function(const std::filesystem::path& file,
                                           const std::string& name);

}  // namespace farcall
