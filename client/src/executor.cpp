#include "farcall/executor.h"

#include <condition_variable>
#include <map>
#include <mutex>

#include "wire/blobs.h"

namespace farcall {

namespace {

// What the I/O thread fills; outlives the watch.
struct State {
  std::mutex mutex;
  std::condition_variable changed;
  std::map<std::uint32_t, Outcome> outcomes;
  std::optional<Error> error;
};

class WatchedOutcomes : public Outcomes {
 public:
  WatchedOutcomes(Client& client, const SubmissionId& submission)
      : client_(client), submission_(submission), state_(std::make_shared<State>()) {
    WatchHandlers handlers;
    handlers.on_outcomes = [state = state_](OutcomeBatch batch) {
      std::lock_guard lock(state->mutex);
      // Copied: what waits here for its reader must not hold up the other submissions' credit.
      for (Outcome& outcome : batch.outcomes) {
        const std::uint32_t index = outcome.task.index;
        outcome.data = Bytes::copy_of(outcome.data.view());
        state->outcomes.emplace(index, std::move(outcome));
      }
      state->changed.notify_all();
    };
    handlers.on_progress = [state = state_](const SubmissionProgress& progress) {
      if (!progress.error) return;
      std::lock_guard lock(state->mutex);
      state->error = progress.error;
      state->changed.notify_all();
    };
    watch_ = client_.watch({{submission, {}, true}}, std::move(handlers));
  }
  ~WatchedOutcomes() override { client_.unwatch(watch_); }

  Result<Outcome> wait(std::uint32_t index, Duration timeout) override {
    std::unique_lock lock(state_->mutex);
    const auto limit = std::min(timeout, Duration(std::chrono::hours(24 * 365)));
    const bool in_time = state_->changed.wait_for(
        lock, limit, [&] { return state_->outcomes.contains(index) || state_->error; });
    if (auto found = state_->outcomes.find(index); found != state_->outcomes.end()) {
      Outcome outcome = found->second;
      lock.unlock();
      auto whole = client_.whole_value(TaskId{submission_, index}, outcome.data);
      if (!whole) return fail(whole.error());
      outcome.data = std::move(*whole);
      client_.collected(submission_, RangeSet{{index, index + 1}});
      return outcome;
    }
    if (in_time) return fail(*state_->error);
    return fail(ErrorCode::kTimeout, "task {} was not finished after {} s",
                TaskId{submission_, index}.string(), std::chrono::duration<double>(limit).count());
  }
  bool has(std::uint32_t index) const override {
    std::lock_guard lock(state_->mutex);
    return state_->outcomes.contains(index);
  }
  const SubmissionId& submission() const override { return submission_; }
  Client& client() const override { return client_; }

 private:
  Client& client_;
  const SubmissionId submission_;
  const std::shared_ptr<State> state_;
  Client::WatchId watch_ = 0;
};

}  // namespace

Result<std::shared_ptr<Outcomes>> submit_watched(Client& client, SubmissionHeader header,
                                                 std::vector<Bytes> argument_sets) {
  // Beyond that the relay takes none in a message; functions read them as a blob, commands cannot.
  const std::uint64_t inline_bytes_max = client.relay().inline_bytes_max;
  for (Bytes& set : argument_sets) {
    if (inline_bytes_max == 0 || set.size() <= inline_bytes_max) continue;
    auto stored = client.store_bytes({set.view()});
    if (!stored) return fail(stored.error());
    set = Bytes(wire::pack_blob_payload({{stored->hash, stored->size}}, "[[0,null]]", ""));
  }
  auto submission = client.submit(std::move(header), std::move(argument_sets));
  if (!submission) return fail(submission.error());
  return std::make_shared<WatchedOutcomes>(client, *submission);
}

Error error_of(const TaskId& task, const Outcome& outcome) {
  const auto failure = decode_failure(outcome.data.view());
  const std::string what =
      failure ? failure_line(*failure) : std::string(name_of(outcome.task.failure));
  return {
      outcome.task.state == TaskState::kCancelled ? ErrorCode::kCancelled : ErrorCode::kTaskFailed,
      fmt::format("task {}{}: {}", task.string(),
                  outcome.task.host.empty() ? "" : " on " + outcome.task.host, what)};
}

}  // namespace farcall
