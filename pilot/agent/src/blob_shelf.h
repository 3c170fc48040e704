// Blobs on a node: read where the endpoint keeps them when that file system is visible here,
// otherwise fetched from the interchange into the node's scratch directory.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>

#include "blobs/depot.h"

namespace farcall::pilot {

// On the loop's thread.
class BlobShelf {
 public:
  using Send = std::function<void(const wire::Message&)>;  // to the interchange
  using Ready = std::function<void(const std::string& hash, const Result<std::string>& file)>;
  // The directory is this pilot's alone.
  BlobShelf(std::filesystem::path directory, blobs::Depot::Post post, Send send, Ready ready);

  void up();
  void down();
  // True: it was about blobs.
  bool on_message(const wire::Message& message);

  // Ready is called once for each get() that no drop() follows.
  void get(const wire::BlobRef& blob);
  void drop(const std::string& hash);

 private:
  void ask(const wire::BlobRef& blob, bool damaged);
  // By value: what is wanted may be over when it returns.
  void told(wire::BlobRef blob, const std::string& file);
  void fetch(const wire::BlobRef& blob);
  void end(const std::string& hash, const Result<std::string>& file);

  const std::filesystem::path directory_;
  const blobs::Depot::Post post_;
  const Send send_;
  const Ready ready_;
  bool up_ = false;
  std::unique_ptr<blobs::Depot> depot_;
  Error no_depot_;  // why there is none
  struct Wanted {
    wire::BlobRef blob;
    bool damaged = false;  // the shared file was found to be so, and that was said
  };
  std::map<std::string, Wanted> wanted_;
  std::set<std::string> verified_;  // shared files that have been read here
};

}  // namespace farcall::pilot
