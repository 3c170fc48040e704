// Waiting for results on the caller's thread.
#include <condition_variable>
#include <deque>
#include <mutex>

#include "client_impl.h"

namespace farcall {

namespace {

// What the I/O thread puts down and the waiting thread takes up. Bounded by the client's credit:
// each batch carries its lease.
struct Inbox {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<OutcomeBatch> batches;
  std::map<SubmissionId, SubmissionProgress> progress;

  void put(OutcomeBatch batch) {
    std::lock_guard lock(mutex);
    batches.push_back(std::move(batch));
    changed.notify_one();
  }
  void put(const SubmissionProgress& state) {
    std::lock_guard lock(mutex);
    progress[state.submission] = state;
    changed.notify_one();
  }
};

struct Wanted {
  WatchRequest request;
  SubmissionProgress progress;
  bool told = false;  // progress has come

  bool done(const CollectRequest& how) const {
    if (!told) return false;
    if (how.only_finished) return has(progress.finished());
    if (!progress.sealed && !how.unsealed_is_complete) return false;
    return progress.finished() == progress.received && has(progress.received);
  }
  // `have` may hold indices that the submission does not have: "all but these" is written so.
  bool has(std::uint32_t count) const {
    if (!request.outcomes) return true;
    return request.have.intersection(Range{0, progress.received}).count() >= count;
  }
};

}  // namespace

Result<std::vector<SubmissionProgress>> Client::collect(CollectRequest request) {
  std::map<SubmissionId, Wanted> wanted;
  for (const WatchRequest& item : request.submissions) wanted[item.submission] = {item, {}, false};
  auto inbox = std::make_shared<Inbox>();
  const WatchId id =
      watch(request.submissions, {[inbox](OutcomeBatch batch) { inbox->put(std::move(batch)); },
                                  [inbox](const SubmissionProgress& state) { inbox->put(state); }});
  std::optional<Error> error;
  const auto started = std::chrono::steady_clock::now();
  while (!error) {
    std::deque<OutcomeBatch> batches;
    std::map<SubmissionId, SubmissionProgress> progress;
    {
      std::unique_lock lock(inbox->mutex);
      inbox->changed.wait_for(lock, std::chrono::milliseconds(100),
                              [&] { return !inbox->batches.empty() || !inbox->progress.empty(); });
      batches.swap(inbox->batches);
      progress.swap(inbox->progress);
    }
    while (!batches.empty()) {
      OutcomeBatch batch = std::move(batches.front());
      batches.pop_front();
      for (const Outcome& outcome : batch.outcomes)
        wanted[batch.submission].request.have.insert(outcome.task.index);
      for (Outcome& outcome : batch.outcomes) {
        if (!request.on_outcomes || !request.whole_values ||
            outcome.task.state != TaskState::kSucceeded)
          continue;
        auto whole = whole_value({batch.submission, outcome.task.index}, outcome.data);
        if (!whole)
          error = whole.error();
        else
          outcome.data = std::move(*whole);
      }
      if (error) break;
      if (request.on_outcomes) request.on_outcomes(batch);
    }
    for (auto& [submission, state] : progress) {
      if (state.error) error = state.error;
      wanted[submission].progress = state;
      wanted[submission].told = true;
      if (request.on_progress) request.on_progress(state);
    }
    if (std::all_of(wanted.begin(), wanted.end(),
                    [&](const auto& entry) { return entry.second.done(request); }))
      break;
    if (error) break;
    if (request.keep_going && !request.keep_going()) {
      error = Error{ErrorCode::kCancelled, "the wait for results was interrupted"};
    } else if (std::chrono::steady_clock::now() - started > request.timeout) {
      error = Error{ErrorCode::kTimeout,
                    fmt::format("not all tasks were finished after {} s",
                                std::chrono::duration<double>(request.timeout).count())};
    } else {
      std::lock_guard lock(impl_->mutex);
      if (impl_->phase == Impl::Phase::kRefused) error = impl_->explain(impl_->last_error);
    }
  }
  unwatch(id);
  if (error) return fail(*error);
  std::vector<SubmissionProgress> result;
  for (const WatchRequest& item : request.submissions)
    result.push_back(wanted[item.submission].progress);
  return result;
}

}  // namespace farcall
