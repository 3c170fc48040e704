// Functions of C++ for farcall. Build them into a shared object and register it:
//
//     #include <farcall/function.h>
//
//     double integrate(double from, double to, int steps) { … }
//     FARCALL_FUNCTION(integrate, integrate)
//
//     g++ -std=c++17 -O2 -shared -fPIC -o libwork.so work.cpp
//     farcall call -e cluster libwork.so:integrate 0 1 1000
//
// Arguments and result: bool, integers, floating point, std::string, std::vector, std::array,
// std::map and std::unordered_map from std::string, std::optional, std::tuple, std::pair,
// std::vector<std::byte> (bytes), nlohmann::json, and structs with
// NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Struct, members…). Keyword arguments go to a function of one
// struct, map or JSON. A function that returns nothing gives null.
//
// Threads: a runner process calls one function at a time. It stays for the next task, and so do the
// globals of the shared object. What a function throws fails the task with type and what(); a crash
// costs the task and its process, nothing else.
#pragma once

#include <cxxabi.h>

#include <atomic>
#include <cstdlib>
#include <functional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

#include "farcall/function_abi.h"
#include "farcall/value.h"

namespace farcall {
namespace detail {

// One per shared object: not to be merged with another one's.
__attribute__((visibility("hidden"))) inline std::atomic<const farcall_host*> current_host{nullptr};

template <class F>
struct Signature : Signature<decltype(&F::operator())> {};
template <class R, class... A>
struct Signature<R(A...)> {
  using Result = R;
  using Arguments = std::tuple<std::decay_t<A>...>;
};
template <class R, class... A>
struct Signature<R (*)(A...)> : Signature<R(A...)> {};
template <class R, class... A>
struct Signature<R (*)(A...) noexcept> : Signature<R(A...)> {};
template <class C, class R, class... A>
struct Signature<R (C::*)(A...)> : Signature<R(A...)> {};
template <class C, class R, class... A>
struct Signature<R (C::*)(A...) const> : Signature<R(A...)> {};

inline std::string demangled(const char* name) {
  int status = 0;
  char* text = abi::__cxa_demangle(name, nullptr, nullptr, &status);
  std::string out = status == 0 && text != nullptr ? text : name;
  std::free(text);
  return out;
}

inline void answer(const farcall_host* host, int kind, const std::string& data) {
  host->answer(host->context, kind, data.data(), data.size());
}
inline void answer_error(const farcall_host* host, int kind, const std::string& type,
                         const std::string& message) {
  answer(host, kind,
         Value{{"type", type}, {"message", message}}.dump(-1, ' ', false,
                                                          Value::error_handler_t::replace));
}

template <class Tuple, std::size_t... I>
Tuple read_arguments(const Value& args, std::index_sequence<I...>) {
  return Tuple{Convert<std::tuple_element_t<I, Tuple>>::read(
      args[I], "argument " + std::to_string(I + 1))...};
}

// The positional arguments out of {"args": […], "kwargs": {…}}.
inline Value positional(const Value& set, std::size_t wanted) {
  if (!set.is_object()) throw ValueError("the argument set is no object");
  Value args = set.value("args", Value::array());
  const Value kwargs = set.value("kwargs", Value::object());
  if (!kwargs.empty()) {
    if (wanted != 1 || !args.empty())
      throw ValueError("it takes positional arguments only; found '" + kwargs.begin().key() +
                       "' by name");
    args.push_back(kwargs);
  }
  if (args.size() != wanted)
    throw ValueError("it takes " + std::to_string(wanted) +
                     (wanted == 1 ? " argument" : " arguments") + ", found " +
                     std::to_string(args.size()));
  return args;
}

template <class F>
void call_and_answer(F& function, const farcall_host* host,
                     typename Signature<F>::Arguments& args) {
  using R = typename Signature<F>::Result;
  Value value;
  if constexpr (std::is_void_v<R>)
    std::apply(function, std::move(args));
  else
    value = to_value(std::apply(function, std::move(args)));
  answer(host, FARCALL_VALUE, pack_value(value));
}

template <class F>
void invoke(F function, const farcall_host* host, const char* data, std::size_t size) noexcept {
  using Arguments = typename Signature<F>::Arguments;
  constexpr std::size_t kCount = std::tuple_size_v<Arguments>;
  std::optional<Arguments> arguments;
  try {
    const Value args = positional(unpack_value({data, size}), kCount);
    arguments.emplace(read_arguments<Arguments>(args, std::make_index_sequence<kCount>{}));
  } catch (const std::exception& error) {
    return answer_error(host, FARCALL_ARGUMENTS, "WrongArguments", error.what());
  }
  current_host = host;
  try {
    call_and_answer(function, host, *arguments);
  } catch (const std::exception& error) {
    answer_error(host, FARCALL_EXCEPTION, demangled(typeid(error).name()), error.what());
  } catch (...) {
    const std::type_info* type = abi::__cxa_current_exception_type();
    answer_error(host, FARCALL_EXCEPTION, type == nullptr ? "unknown" : demangled(type->name()),
                 "an exception that is no std::exception");
  }
  current_host = nullptr;
}

#if defined(__clang__)
inline constexpr const char* kBuiltWith = "clang " __clang_version__;
#else
inline constexpr const char* kBuiltWith = "GCC " __VERSION__;
#endif

}  // namespace detail

// How far the running task is, for whoever waits for it: a progress bar, `farcall task status`.
// `total` 0: not known. Cheap, any thread; of more than ten a second only the last is told. Outside
// of a task it does nothing.
inline void progress(double done, double total = 0, std::string_view note = {}) {
  if (const farcall_host* host = detail::current_host; host != nullptr)
    host->progress(host->context, done, total, note.data(), note.size());
}

}  // namespace farcall

// FARCALL_FUNCTION(name, callable): makes a function, a lambda without captures or a function
// object callable as `name`. At namespace scope, once per name and shared object.
#define FARCALL_FUNCTION(function_name, ...)                                                     \
  static void farcall_invoke_##function_name(                                                    \
      const farcall_host* farcall_host_, const char* farcall_data_, std::size_t farcall_size_) { \
    ::farcall::detail::invoke(__VA_ARGS__, farcall_host_, farcall_data_, farcall_size_);         \
  }                                                                                              \
  extern "C" __attribute__((visibility("default"), used))                                        \
  const farcall_function farcall_function_##function_name = {                                    \
      FARCALL_FUNCTION_ABI, sizeof(farcall_function), #function_name,                            \
      ::farcall::detail::kBuiltWith, farcall_invoke_##function_name};
