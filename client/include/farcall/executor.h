// Calls with C++ types: submit a function, get a future.
//
//     auto client = farcall::Client::connect();
//     auto solve = farcall::read_native_function("libheat.so", "solve");
//     auto id = (*client)->register_function(solve->record, solve->body);
//     auto executor = farcall::Executor::make(**client, "cluster");
//     auto future = executor->submit<double>(*id, 0.1, 200);
//     auto value = future->get();                       // Result<double>
//
// Functions in shared objects (farcall/function.h) and functions of Python files are called alike;
// for the latter arguments and results must be what JSON can express. Errors are values:
// kTaskFailed has the remote error's type and text, kCancelled, kTimeout when get() waited in vain,
// kInvalidArgument when the result is not of the type that was asked for. Threads: all of it may be
// used from any thread. Futures must go before their client.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "farcall/client.h"
#include "farcall/functions.h"
#include "farcall/payload.h"
#include "farcall/value.h"

namespace farcall {

// The outcomes of one submission as they come. Shared by its futures; made by submit_watched().
class Outcomes {
 public:
  virtual ~Outcomes() = default;
  // Waits at most so long, then fetches a large result, however long that takes. kTimeout;
  // kNotFound when the relay has no such task any more; what Client::whole_value() says.
  virtual Result<Outcome> wait(std::uint32_t index, Duration timeout) = 0;
  virtual bool has(std::uint32_t index) const = 0;
  virtual const SubmissionId& submission() const = 0;
  virtual Client& client() const = 0;
};

// Sends the argument sets as one submission and watches it; durable when it returns. A set beyond
// what the relay takes in a message (bytes: Client::relay()) goes as a blob; of a command it
// cannot.
Result<std::shared_ptr<Outcomes>> submit_watched(Client& client, SubmissionHeader header,
                                                 std::vector<Bytes> argument_sets);

// What a value of the wrong type or a failure comes to as an error. For Future.
Error error_of(const TaskId& task, const Outcome& outcome);

// The result of one task. Copies share it.
template <class R>
class Future {
 public:
  Future(std::shared_ptr<Outcomes> outcomes, std::uint32_t index)
      : outcomes_(std::move(outcomes)), index_(index) {}

  TaskId task() const { return {outcomes_->submission(), index_}; }
  bool ready() const { return outcomes_->has(index_); }

  // The value; waits for it. May be called again.
  Result<R> get(Duration timeout = Duration::max()) const {
    auto outcome = outcomes_->wait(index_, timeout);
    if (!outcome) return fail(outcome.error());
    if (outcome->task.state != TaskState::kSucceeded) return fail(error_of(task(), *outcome));
    return value_of(*outcome);
  }
  // As it came: state, host, times, and the bytes of value or failure (farcall/payload.h).
  Result<Outcome> outcome(Duration timeout = Duration::max()) const {
    return outcomes_->wait(index_, timeout);
  }
  // Wishes its end; get() says what came of it.
  Result<Client::CancelCounts> cancel() const { return outcomes_->client().cancel({task()}); }

 private:
  Result<R> value_of(const Outcome& outcome) const {
    if constexpr (std::is_same_v<R, ShellResult>) {
      return decode_shell_result(outcome.data.view());
    } else {
      try {
        if constexpr (std::is_void_v<R>)
          return {};
        else
          return from_value<R>(unpack_value(outcome.data.view()), "the result");
      } catch (const ValueError& error) {
        return fail(ErrorCode::kInvalidArgument, "task {}: {}", task().string(), error.what());
      }
    }
  }

  std::shared_ptr<Outcomes> outcomes_;
  std::uint32_t index_ = 0;
};

// Calls on one endpoint. `header`: what all its tasks have in common (walltime, resources, group
// …).
class Executor {
 public:
  // kNotFound lists the endpoints that there are.
  static Result<Executor> make(Client& client, const std::string& endpoint,
                               SubmissionHeader header = {}) {
    auto id = client.find_endpoint(endpoint);
    if (!id) return fail(id.error());
    header.endpoint = *id;
    return Executor(client, std::move(header));
  }

  SubmissionHeader& header() { return header_; }

  // One call of a registered function. Durable at the relay when it returns.
  template <class R, class... A>
  Result<Future<R>> submit(const FunctionId& function, const A&... arguments) {
    std::vector<Bytes> sets;
    sets.push_back(argument_set(arguments...));
    auto outcomes = send(function, std::move(sets));
    if (!outcomes) return fail(outcomes.error());
    return Future<R>(*outcomes, 0);
  }
  // submit() and get().
  template <class R, class... A>
  Result<R> call(const FunctionId& function, const A&... arguments) {
    auto future = submit<R>(function, arguments...);
    if (!future) return fail(future.error());
    return future->get();
  }
  // One call for each tuple of arguments, all in one submission: the way to send many.
  template <class R, class... A>
  Result<std::vector<Future<R>>> submit_all(const FunctionId& function,
                                            const std::vector<std::tuple<A...>>& rows) {
    std::vector<Bytes> sets;
    sets.reserve(rows.size());
    for (const auto& row : rows)
      sets.push_back(
          std::apply([](const A&... arguments) { return argument_set(arguments...); }, row));
    auto outcomes = send(function, std::move(sets));
    if (!outcomes) return fail(outcomes.error());
    std::vector<Future<R>> futures;
    futures.reserve(rows.size());
    for (std::uint32_t i = 0; i < rows.size(); ++i) futures.emplace_back(*outcomes, i);
    return futures;
  }

  template <class... A>
  static Bytes argument_set(const A&... arguments) {
    Value args = Value::array();
    (args.push_back(to_value(arguments)), ...);
    return Bytes(pack_value({{"args", std::move(args)}}));
  }

 private:
  Executor(Client& client, SubmissionHeader header)
      : client_(&client), header_(std::move(header)) {}

  Result<std::shared_ptr<Outcomes>> send(const FunctionId& function, std::vector<Bytes> sets) {
    SubmissionHeader header = header_;
    header.function = function;
    return submit_watched(*client_, std::move(header), std::move(sets));
  }

  Client* client_;
  SubmissionHeader header_;
};

}  // namespace farcall
