// Attempts that need blobs wait until these are on the node; their slots are for others meanwhile.
#include "base/log.h"
#include "pilot/core/core.h"
#include "pilot/core/failure.h"

namespace farcall::pilot {

using wire::AttemptRef;

namespace {
Result<std::vector<wire::BlobRef>> blobs_of(const Assignment& work) {
  auto blobs = wire::blob_refs(work.arguments.view());
  if (!blobs) return blobs;
  auto of_function = wire::blob_refs(work.function->body.view());
  if (!of_function) return of_function;
  blobs->insert(blobs->end(), of_function->begin(), of_function->end());
  return blobs;
}
}  // namespace

// Into the queue, or to those that wait; asks for what nobody has asked for yet.
void Core::await_blobs(Attempt& attempt, Now now) {
  const AttemptRef ref = attempt.work.ref;
  const auto needed = blobs_of(attempt.work);
  if (!needed) return fail_input(attempt, needed.error(), now);
  bool all_here = true;
  for (const wire::BlobRef& blob : *needed) {
    auto [entry, is_new] = blobs_.try_emplace(blob.hash);
    entry->second.holders.insert(ref);
    if (is_new) effects_.push_back(GetBlob{blob});
    all_here &= !entry->second.file.empty();
  }
  if (!all_here) {
    waiting_.insert(ref);
    return;
  }
  for (const wire::BlobRef& blob : *needed)
    attempt.work.blobs[blob.hash] = blobs_.at(blob.hash).file;
  queue_.push_back(ref);
}

void Core::on_blob(const std::string& hash, const Result<std::string>& file, Now now) {
  auto found = blobs_.find(hash);
  if (found == blobs_.end()) return;  // nobody waits any more
  if (file) found->second.file = *file;
  for (const AttemptRef& ref : std::set<AttemptRef>(found->second.holders)) {
    if (waiting_.erase(ref) == 0) continue;
    Attempt& attempt = *find(ref);
    if (file)
      await_blobs(attempt, now);
    else
      fail_input(attempt, file.error(), now);
  }
}

void Core::fail_input(Attempt& attempt, const Error& error, Now now) {
  const AttemptRef ref = attempt.work.ref;
  FailureText text;
  text.type = "InputUnavailable";
  text.failure = FailureClass::kEnvironment;
  text.host = settings_.hello.node;
  text.attempt = ref.attempt;
  text.message =
      fmt::format("an argument or the function of the task could not be brought to {}: {}",
                  text.host, error.message);
  TaskOutcome outcome;
  outcome.state = TaskState::kFailed;
  outcome.failure = FailureClass::kEnvironment;
  deliver(attempt, std::move(outcome), failure_data(text), now);
  waiting_.insert(ref);  // where drop_queued() looks for it
  drop_queued(ref);
}

// The attempt is over.
void Core::release_blobs(const Assignment& work) {
  const auto needed = blobs_of(work);
  if (!needed) return;
  for (const wire::BlobRef& blob : *needed) {
    auto entry = blobs_.find(blob.hash);
    if (entry == blobs_.end()) continue;
    entry->second.holders.erase(work.ref);
    if (!entry->second.holders.empty()) continue;
    blobs_.erase(entry);
    effects_.push_back(DropBlob{blob.hash});
  }
}

}  // namespace farcall::pilot
