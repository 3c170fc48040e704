// MPI functions of C++ for farcall: their first parameter is a communicator.
//
//     #include <farcall/mpi_function.h>
//
//     double total(MPI_Comm comm, double x) { … }
//     FARCALL_MPI_FUNCTION(total, total)
//
//     mpicxx -std=c++17 -O2 -shared -fPIC -o libwork.so work.cpp
//     farcall call -e cluster --ranks 4 libwork.so:total 10
//
// Every rank of the task calls the function with the same arguments; the result is what rank 0
// returns. The communicator is freed when all have returned. Arguments, results, exceptions and
// threads are as in function.h, farcall::progress() says nothing; MPI is initialised and stays so,
// for one thread. The shared object has to be built with the MPI library of the endpoint.
#pragma once

#include <mpi.h>

#include "farcall/function.h"

namespace farcall::detail {

template <class F, class... Rest>
void invoke_with(F function, MPI_Comm comm, const farcall_host* host, const char* data,
                 std::size_t size, std::tuple<MPI_Comm, Rest...>*) noexcept {
  invoke([&](Rest... rest) { return function(comm, std::move(rest)...); }, host, data, size);
}

template <class F>
void invoke_mpi(F function, const farcall_host* host, int comm, const char* data,
                std::size_t size) noexcept {
  using Arguments = typename Signature<F>::Arguments;
  static_assert(std::tuple_size_v<Arguments> > 0 &&
                    std::is_same_v<std::tuple_element_t<0, Arguments>, MPI_Comm>,
                "the first parameter of an MPI function is an MPI_Comm");
  invoke_with(function, MPI_Comm_f2c(comm), host, data, size, static_cast<Arguments*>(nullptr));
}

}  // namespace farcall::detail

// FARCALL_MPI_FUNCTION(name, callable): as FARCALL_FUNCTION, for a callable whose first parameter
// is an MPI_Comm.
#define FARCALL_MPI_FUNCTION(function_name, ...)                                               \
  static void farcall_invoke_mpi_##function_name(const farcall_host* farcall_host_,            \
                                                 int farcall_comm_, const char* farcall_data_, \
                                                 std::size_t farcall_size_) {                  \
    ::farcall::detail::invoke_mpi(__VA_ARGS__, farcall_host_, farcall_comm_, farcall_data_,    \
                                  farcall_size_);                                              \
  }                                                                                            \
  extern "C" __attribute__((visibility("default"), used))                                      \
  const farcall_mpi_function farcall_mpi_function_##function_name = {                          \
      FARCALL_FUNCTION_ABI, sizeof(farcall_mpi_function), #function_name,                      \
      ::farcall::detail::kBuiltWith, farcall_invoke_mpi_##function_name};
