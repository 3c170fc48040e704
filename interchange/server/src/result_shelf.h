// The large results of the endpoint's tasks, which lie in its staging directory until somebody
// wants them or their time is over; read on a thread of its own.
#pragma once

#include <functional>
#include <memory>
#include <unordered_map>

#include "base/ids.h"
#include "blobs/depot.h"
#include "blobs/disk_thread.h"
#include "model/range_set.h"
#include "staging/hdf5/result_folder.h"

namespace farcall::interchange {

// On the loop's thread, as are all callbacks.
class ResultShelf {
 public:
  using Send = std::function<void(const wire::Message&)>;
  using Answer = std::function<void(const Result<Bytes>&)>;
  using Tasks = std::unordered_map<SubmissionId, RangeSet>;

  // Nothing stays there for longer than `keep` after it was written.
  static Result<std::unique_ptr<ResultShelf>> open(std::filesystem::path folder, Duration keep,
                                                   blobs::Depot::Post post);
  ~ResultShelf();
  ResultShelf(const ResultShelf&) = delete;

  void serve(const wire::BlobGet& get, Send reply);
  void gather(const wire::BlobRef& blob, staging::Pieces pieces, std::uint64_t bytes_max,
              Answer done);
  void drop(const std::string& task, const std::string& hash, Answer done);
  // The answers are as docs/protocol.md has them.
  void list(const std::string& after, std::size_t files_max, Answer done);
  // Some of them: as long as it says that there are more, the question is to be asked again.
  void release(Tasks tasks, Answer done);
  // All of them, bit by bit; nobody can ask for them any more.
  void forget(Tasks tasks, Answer done);
  void expire();

 private:
  ResultShelf(std::filesystem::path folder, Duration keep, blobs::Depot::Post post);
  // `work` on the thread, then `done` on the loop unless this has gone.
  void run(std::function<Result<std::string>(staging::ResultFolder&)> work, Answer done);

  const Duration keep_;
  blobs::Depot::Post post_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  blobs::DiskThread<staging::ResultFolder> disk_;  // last: its thread ends first
};

}  // namespace farcall::interchange
